

default	assistant *0BfineHRÀö×ZÀö×