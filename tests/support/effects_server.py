"""An MCP server over stdio whose tools have effects that outlive it: lines in files, at once and in order.

`python -m tests.support.effects_server FILE`. Notes go to FILE, one line each; beginnings and ends of what lasts go to
FILE.marks; what is held ends once there is FILE.let-go. What it shows is in FILE.shown.
"""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from mcp.server.mcpserver.exceptions import ToolError

from tests.support.quiet_server import quiet_server
from tests.support.waiting import await_until

_HOLD_SECONDS = 600.0
server = quiet_server("effects")


@server.tool()
async def note(text: str, seconds: float = 0.0) -> str:
    """Writes a line at once, and answers after a while."""
    _append(Path(sys.argv[1]), text)
    await asyncio.sleep(seconds)
    return text


@server.tool()
async def refuse(text: str) -> str:
    """Writes a line, and fails."""
    _append(Path(sys.argv[1]), text)
    raise ToolError("refused")


@server.tool()
async def last(text: str, seconds: float = 0.0, hold: bool = False) -> str:
    """Lasts so long; with `hold`, until everything is let go."""
    path, worker = Path(sys.argv[1]), _worker()
    _append(_marks(path), f"begin {worker} {text}")
    await asyncio.sleep(seconds)
    if hold:
        await await_until(_gate(path).exists, timeout=_HOLD_SECONDS)
    _append(_marks(path), f"end {worker} {text}")
    return text


@server.tool()
async def look() -> dict[str, str]:
    """Answers what is to be shown."""
    shown = _shown(Path(sys.argv[1]))
    return {"shown": shown.read_text() if shown.exists() else ""}


@dataclass(frozen=True)
class Mark:
    """The beginning or the end of what `last` did."""

    begins: bool
    worker: int
    """The process id of the worker that called."""
    text: str


def effects(path: Path) -> list[str]:
    """What was noted so far."""
    return path.read_text().splitlines() if path.exists() else []


def marks(path: Path) -> list[Mark]:
    """What began and ended so far, in order."""
    words = [line.split(" ", 2) for line in effects(_marks(path))]
    return [Mark(what == "begin", int(worker), text) for what, worker, text in words]


def let_go(path: Path) -> None:
    """Ends what is held, now and from now on."""
    _gate(path).touch()


def show(path: Path, text: str) -> None:
    """Sets what `look` answers from now on, as a whole."""
    written = path.with_name(f"{path.name}.new")
    written.write_text(text)
    written.rename(_shown(path))


def _worker() -> int:
    """The worker that this server belongs to: its parent is the launcher."""
    return int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1])


def _marks(path: Path) -> Path:
    return path.with_name(f"{path.name}.marks")


def _gate(path: Path) -> Path:
    return path.with_name(f"{path.name}.let-go")


def _shown(path: Path) -> Path:
    return path.with_name(f"{path.name}.shown")


def _append(path: Path, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


if __name__ == "__main__":
    server.run()
