"""The page of the server, and what it needs of the application."""
