"""Methods as tools of MCP: which there are, what they take and answer, and the endpoint that serves them."""
