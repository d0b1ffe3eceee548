"""MCP servers that log nothing, and leave the logging of their process alone."""

import logging

from mcp.server.mcpserver import MCPServer


def quiet_server(name: str) -> MCPServer:
    """A server that sets no level for the whole process, as one does by itself: tests look for what is logged."""
    root = logging.getLogger()
    level = root.level
    server = MCPServer(name, log_level="CRITICAL")
    root.setLevel(level)
    return server
