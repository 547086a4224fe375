"""`barkfast serve`: speech over HTTP on the routes that OpenAI's clients call (the extra `serve`)."""
