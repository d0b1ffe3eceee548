"""Messages from models, and plain values from messages, one file per noun."""
