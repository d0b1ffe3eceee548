"""The tasks context: what is to be done, when, and what became of it."""
