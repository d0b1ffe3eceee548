"""The rules of the workflows context. Each runs inside one transaction."""
