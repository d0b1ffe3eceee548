"""Messages from models, and models from messages."""
