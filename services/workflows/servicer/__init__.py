"""The RPCs of the workflows context: a message in, one rule, a message out."""
