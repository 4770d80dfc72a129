
 																																Á

default	assistant$3f2504e0-4f89-41d3-9a0c-0305e82c3301.gen-ai"OpenAI*N{"apiProvider":"OpenAI","apiUrl":"https://api.openai.com/v1/chat/completions"}2openai:@PZapi.openai.com`<