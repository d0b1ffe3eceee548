"""Tools: those of MCP servers, and those that are built in."""
