"""The context's tables and all SQL on them."""
