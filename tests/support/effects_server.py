"""An MCP server over stdio whose one tool has an effect that outlives it: a line in a file, one for each call."""

import asyncio
import os
import sys
from pathlib import Path

from mcp.server.mcpserver import MCPServer

server = MCPServer("effects", log_level="CRITICAL")


@server.tool()
async def note(text: str, seconds: float = 0.0) -> str:
    """Writes a line at once, and answers after a while."""
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{text}\n".encode())
    finally:
        os.close(file)
    await asyncio.sleep(seconds)
    return text


def effects(path: Path) -> list[str]:
    """What was written so far."""
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    server.run()
