"""How do others reach a model? An HTTP server: OpenAI's API for a GPT, plain questions for a BERT, and a web page."""
