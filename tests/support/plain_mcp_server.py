"""An MCP server over stdio in nothing but the standard library: `python -m tests.support.plain_mcp_server`.

It starts in no time, knows only the handshake of 2025-11-25, and misbehaves on request. Whatever `GOSSIP` is in its
environment it tells to everybody: in the list of its tools, and on standard error.
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
            return {"tools": offered()}
        case "tools/call":
            text = json.dumps(TOOLS[params["name"]](params.get("arguments") or {}))
            return {"content": [{"type": "text", "text": text}], "isError": params["name"] == "fail"}
    return None


def offered() -> list[dict[str, Any]]:
    tools: list[dict[str, Any]] = [{"name": name, "inputSchema": {"type": "object"}} for name in sorted(TOOLS)]
    return tools + gossip(os.environ["GOSSIP"]) if "GOSSIP" in os.environ else tools


def gossip(told: str) -> list[dict[str, Any]]:
    schema = {"type": "object", "properties": {"word": {"enum": [told], "default": told, "description": f"is {told}"}}}
    return [
        {"name": "gossip", "description": f"Knows {told}.", "inputSchema": schema},
        {"name": f"knows_{told}", "inputSchema": {"type": "object"}},
    ]


class Refused(Exception):
    """Answered as an error of the protocol."""


def serve(message: dict[str, Any]) -> None:
    try:
        result = answer(message["method"], message.get("params") or {})
        fault = "no such method"
    except Refused as refused:
        result, fault = None, str(refused)
    failed = {"error": {"code": -32601, "message": fault}}
    reply = {"jsonrpc": "2.0", "id": message["id"], **(failed if result is None else {"result": result})}
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


def sleep(arguments: dict[str, Any]) -> str:
    time.sleep(arguments["seconds"])
    return "done"


def crash(arguments: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def complain(arguments: dict[str, Any]) -> None:
    sys.stderr.write(arguments.get("text", "something is wrong") + "\n")
    sys.stderr.flush()


def refuse(arguments: dict[str, Any]) -> None:
    raise Refused(arguments["text"])


TOOLS = {
    "complain": complain,
    "crash": crash,
    "echo": lambda arguments: arguments,
    "environment": lambda arguments: dict(os.environ),
    "fail": lambda arguments: arguments["text"],
    "pid": lambda arguments: os.getpid(),
    "refuse": refuse,
    "sleep": sleep,
}

if __name__ == "__main__":
    if "GOSSIP" in os.environ:
        complain({"text": f"begins with {os.environ['GOSSIP']}"})
    for line in sys.stdin:
        received = json.loads(line)
        if "id" in received:
            # Daemons, so that the process ends with its input even while a call goes on.
            threading.Thread(target=serve, args=[received], daemon=True).start()
