ŞH

default	assistant *0BfineHRÀö×ZÀö×J

default	assistant *08BfineHRÀö×ZÀö×"B9.4.0u"traditional*
enterprise2
default:noneBÀö×