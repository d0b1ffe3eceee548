"""The RPCs of the context, one file per service: a message in, one rule, a message out."""
