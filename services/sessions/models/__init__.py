"""What the context speaks of, and what these things know by themselves."""
