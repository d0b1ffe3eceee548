"""The worker's secrets: read from files, given to tools, and taken out of everything that comes back."""
