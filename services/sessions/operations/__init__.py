"""The rules of the context, one file per noun. Each runs inside one transaction."""
