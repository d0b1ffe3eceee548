"""An MCP server over stdio in nothing but the standard library: `python -m tests.support.plain_mcp_server [FAULT]`.

It starts in no time, knows only the handshake of 2025-11-25, and misbehaves on request: from the start with a FAULT
(`dies`, `mute`, `closed`, `refuses`), or by its tools. Whatever `GOSSIP` is in its environment it tells to everybody:
in the list of its tools, and on standard error.
"""

import base64
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

ENDLESS = 10**9
# The input of the tools that are not known from the start, or that say what they take and answer.
SCHEMAS: dict[str, dict[str, Any]] = {
    "promise": {
        "inputSchema": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^x"}}},
        "outputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    }
}
output = threading.Lock()
canceled: list[Any] = []


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a request, None for a method that there is not."""
    match method:
        case "initialize":
            information = {"name": "plain", "version": "1"}
            capabilities = {"tools": {"listChanged": True}}
            return {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": information}
        case "tools/list":
            return {"tools": offered()}
        case "tools/call":
            arguments = params.get("arguments") or {}
            text = json.dumps(TOOLS[params["name"]](arguments))
            structured = {"structuredContent": arguments["structured"]} if "structured" in arguments else {}
            return {"content": [{"type": "text", "text": text}], "isError": params["name"] == "fail", **structured}
    return None


def offered() -> list[dict[str, Any]]:
    tools = [{"name": name, **SCHEMAS.get(name, {"inputSchema": {"type": "object"}})} for name in TOOLS]
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
    reply({"id": message["id"], **(failed if result is None else {"result": result})})


def reply(message: dict[str, Any]) -> None:
    write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def write(data: bytes) -> None:
    with output:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def sleep(arguments: dict[str, Any]) -> str:
    time.sleep(arguments["seconds"])
    return "done"


def crash(arguments: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def complain(arguments: dict[str, Any]) -> None:
    sys.stderr.write(arguments.get("text", "something is wrong") + "\n")
    sys.stderr.flush()


def encode(arguments: dict[str, Any]) -> list[str]:
    """What it is given, as other systems may write it."""
    data = arguments["text"].encode()
    return [data.hex(), data.hex().upper(), base64.b64encode(data).decode(), quote(data), quote(data, safe="")]


def refuse(arguments: dict[str, Any]) -> None:
    raise Refused(arguments["text"])


def flood(arguments: dict[str, Any]) -> str:
    """Writes without end, while everything else goes on: `garbage`, `notifications`, `answers` or `stderr`."""
    padding = b" " * 2000 + b"\n"
    line = {
        "garbage": b"this is no message" + padding,
        "notifications": b'{"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}' + padding,
        "answers": b'{"jsonrpc": "2.0", "id": 999999, "result": {}}' + padding,
        "stderr": b"complaint" + padding,
    }[arguments["with"]]

    def go_on() -> None:
        while True:
            if arguments["with"] == "stderr":
                os.write(2, line * 100)
            else:
                write(line * 100)

    threading.Thread(target=go_on, daemon=True).start()
    return "begun"


def ask(arguments: dict[str, Any]) -> None:
    """Asks the client without end, and reads no answer any more."""
    deaf.set()
    number = 0
    while True:
        number += 1
        reply({"id": f"{number}{'x' * 10_000}", "method": "ping"})


def endless_line(arguments: dict[str, Any]) -> None:
    for _ in range(ENDLESS // 2**16):
        write(b"x" * 2**16)


def garble(arguments: dict[str, Any]) -> str:
    """Writes what is no text and no JSON, and what is JSON and no message."""
    write(b"\xff\xfe\x00\n{not json}\n[1, 2]\n\n" + b'{"jsonrpc": "2.0"}\n' + b"[" * 100_000 + b"\n")
    return "done"


def broken_text(arguments: dict[str, Any]) -> None:
    write(b'{"jsonrpc": "2.0", "id": %d, "result": {"content": [{"type": "text", "text": "a\xffb"}]}}\n' % last_id)
    time.sleep(ENDLESS)


def twice(arguments: dict[str, Any]) -> str:
    reply({"id": last_id, "result": {"content": [{"type": "text", "text": "first"}]}})
    return "second"


def wrong_id(arguments: dict[str, Any]) -> None:
    reply({"id": last_id + 1000, "result": {"content": []}})
    time.sleep(ENDLESS)


def close_output(arguments: dict[str, Any]) -> None:
    os.close(1)
    time.sleep(ENDLESS)


def cling(arguments: dict[str, Any]) -> int:
    """From now on neither the end of the input nor SIGTERM ends it."""
    clinging.set()
    return os.getpid()


def beget(arguments: dict[str, Any]) -> list[int]:
    """Starts processes that outlive this one: one in its group that ignores SIGTERM, one that has left the group, and
    one whose parent is gone."""
    stay = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(1000)"
    children = []
    for options in ({}, {"start_new_session": True}):
        child = subprocess.Popen([sys.executable, "-c", stay], stdout=subprocess.PIPE, **options)  # type: ignore[call-overload]
        child.stdout.readline()
        children.append(child.pid)
    leave = "setsid sleep 1000 > /dev/null 2>&1 & echo $!"
    return [*children, int(subprocess.check_output(["/bin/sh", "-c", leave]))]


def hear(arguments: dict[str, Any]) -> list[Any]:
    """Waits until it hears that a request is canceled; answers which."""
    heard.wait()
    return canceled


def hog(arguments: dict[str, Any]) -> str:
    try:
        return f"got {len(bytearray(arguments['megabytes'] * 2**20)) >> 20} MB"
    except MemoryError:
        return "refused"


def open_files(arguments: dict[str, Any]) -> int:
    """How many of so many files could be opened."""
    with contextlib.ExitStack() as opened:
        for number in range(arguments["count"]):
            try:
                opened.enter_context(open("/dev/null"))
            except OSError:
                return number
        return int(arguments["count"])


def grow(arguments: dict[str, Any]) -> None:
    """Has one tool more from now on, and says so."""
    TOOLS[arguments["name"]] = lambda arguments: "grown"
    write(b'{"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}\n')


TOOLS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ask": ask,
    "beget": beget,
    "big": lambda arguments: "x" * arguments["size"],
    "broken_text": broken_text,
    "cling": cling,
    "close_output": close_output,
    "complain": complain,
    "core": lambda arguments: resource.getrlimit(resource.RLIMIT_CORE),
    "crash": crash,
    "echo": lambda arguments: arguments,
    "endless_line": endless_line,
    "encode": encode,
    "environment": lambda arguments: dict(os.environ),
    "fail": lambda arguments: arguments["text"],
    "flood": flood,
    "garble": garble,
    "grow": grow,
    "hear": hear,
    "hog": hog,
    "open_files": open_files,
    "pid": lambda arguments: os.getpid(),
    "promise": lambda arguments: "kept",
    "refuse": refuse,
    "sleep": sleep,
    "twice": twice,
    "wrong_id": wrong_id,
}
clinging = threading.Event()
deaf = threading.Event()
heard = threading.Event()
last_id = 0


def main() -> None:
    global last_id
    fault = sys.argv[1] if len(sys.argv) > 1 else ""
    if fault == "dies":
        sys.exit("the configuration is missing")
    if fault == "closed":
        os.close(1)
    signal.signal(signal.SIGTERM, lambda *_: None if clinging.is_set() else os._exit(0))
    if "GOSSIP" in os.environ:
        complain({"text": f"begins with {os.environ['GOSSIP']}"})
    for line in sys.stdin:
        if deaf.is_set():
            time.sleep(ENDLESS)
        received = json.loads(line)
        if received["method"] == "notifications/cancelled":
            canceled.append(received["params"]["requestId"])
            heard.set()
        if fault == "refuses":
            reply({"id": received["id"], "error": {"code": 1, "message": f"not with {os.environ['GOSSIP']}"}})
        elif "id" in received and not fault:
            last_id = received["id"] if isinstance(received["id"], int) else last_id
            # Daemons, so that the process ends with its input even while a call goes on.
            threading.Thread(target=serve, args=[received], daemon=True).start()
    while clinging.is_set():
        time.sleep(1)


if __name__ == "__main__":
    main()
