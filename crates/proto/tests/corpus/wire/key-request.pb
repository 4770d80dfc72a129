
openai