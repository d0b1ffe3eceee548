"""What the workflows context is about."""
