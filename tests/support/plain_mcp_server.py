"""An MCP server over stdio in nothing but the standard library: `python -m tests.support.plain_mcp_server`.

It starts in no time, knows only the handshake of 2025-11-25, and misbehaves on request.
"""

import json
import os
import signal
import sys
import threading
import time
from typing import Any


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a request, None for a method that there is not."""
    match method:
        case "initialize":
            information = {"name": "plain", "version": "1"}
            return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": information}
        case "tools/list":
            return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in sorted(TOOLS)]}
        case "tools/call":
            text = json.dumps(TOOLS[params["name"]](params.get("arguments") or {}))
            return {"content": [{"type": "text", "text": text}]}
    return None


def serve(message: dict[str, Any]) -> None:
    result = answer(message["method"], message.get("params") or {})
    missing = {"error": {"code": -32601, "message": "no such method"}}
    reply = {"jsonrpc": "2.0", "id": message["id"], **(missing if result is None else {"result": result})}
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


def sleep(arguments: dict[str, Any]) -> str:
    time.sleep(arguments["seconds"])
    return "done"


def crash(arguments: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def complain(arguments: dict[str, Any]) -> None:
    sys.stderr.write("something is wrong\n")
    sys.stderr.flush()


TOOLS = {
    "complain": complain,
    "crash": crash,
    "environment": lambda arguments: dict(os.environ),
    "pid": lambda arguments: os.getpid(),
    "sleep": sleep,
}

if __name__ == "__main__":
    for line in sys.stdin:
        received = json.loads(line)
        if "id" in received:
            # Daemons, so that the process ends with its input even while a call goes on.
            threading.Thread(target=serve, args=[received], daemon=True).start()
