"""Five hundred who watch through one gateway: all of them are told, and none of them costs a thread."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartBaton
from tests.support.baton import Baton, task

WATCHERS, FEW = 500, 20
# A service has this many database threads at most, and they begin when they are first needed.
DATABASE_THREADS = 8
FEW_THREADS = 8
PATIENCE_SECONDS = 240


class Watcher:
    """One connection, and the events on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._last: Any = None

    async def event(self) -> Any:
        """The data of the next event."""
        while not (line := await self._reader.readline()).startswith(b"data: "):
            assert line, f"the stream has ended: {self._last}"
        self._last = json.loads(line.removeprefix(b"data: "))
        return self._last

    async def event_that(self, tells: Callable[[Any], bool]) -> None:
        while not tells(await self.event()):
            pass

    def leave(self) -> None:
        self._writer.transport.abort()


async def watching(baton: Baton, path: str) -> Watcher:
    """Somebody who watches, and knows where it begins."""
    reader, writer = await asyncio.open_connection("127.0.0.1", baton.port)
    head = f"GET {path} HTTP/1.1\r\nHost: baton\r\nAuthorization: Bearer {baton.admin_token}\r\n\r\n"
    writer.write(head.encode())
    status = await reader.readline()
    assert b" 200 " in status, status
    watcher = Watcher(reader, writer)
    await watcher.event()
    return watcher


def threads(baton: Baton, *names: str) -> dict[str, int]:
    running = baton.children()
    status = {name: Path(f"/proc/{running[name]}/status").read_text() for name in names}
    return {name: int(text.split("Threads:")[1].split()[0]) for name, text in status.items()}


async def _all(waiting: list[Awaitable[Any]]) -> list[Any]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await asyncio.gather(*waiting)


@pytest.mark.timeout(900)
async def test_all_who_watch_are_told_and_none_costs_a_thread(engine: str, start_here: StartBaton) -> None:
    # Its own: others would have to wait for their turn.
    baton = await asyncio.to_thread(start_here)

    def write(text: str) -> None:
        line = {"entries": [{"level": "info", "message": text}]}
        assert baton.call("POST", "/system-logs", line).status_code == 201

    def is_line(text: str) -> Callable[[Any], bool]:
        return lambda told: told["entry"] is not None and (told["entry"]["system_log"] or {}).get("message") == text

    def run(title: str) -> None:
        baton.run_now(baton.create("/tasks", task(title, {"uses": "echo.test"}))["id"])

    def is_run(title: str) -> Callable[[Any], bool]:
        return lambda told: told["run"] is not None and told["run"]["task"] == title

    for service, path, cause, tells in (
        ("sessions", "/feed:watch?source_type=system_log", write, is_line),
        ("tasks", "/runs:watch?status=succeeded", run, is_run),
    ):
        watchers: list[Watcher] = []
        try:
            await _are_told(baton, service, path, watchers, cause, tells)
        finally:
            for watcher in watchers:
                watcher.leave()


async def _are_told(
    baton: Baton,
    service: str,
    path: str,
    watchers: list[Watcher],
    cause: Callable[[str], None],
    tells: Callable[[str], Callable[[Any], bool]],
) -> None:
    """`cause` makes something happen, and what `tells` of it is true of one event of each who watches."""
    watchers += await _all([watching(baton, path) for _ in range(FEW)])
    await asyncio.to_thread(cause, "for few")
    await _all([watcher.event_that(tells("for few")) for watcher in watchers])
    with_few = threads(baton, "gateway", service)
    # As many connections at a time as a busy machine accepts without delay.
    while len(watchers) < WATCHERS:
        watchers += await _all([watching(baton, path) for _ in range(min(60, WATCHERS - len(watchers)))])
    await asyncio.to_thread(cause, "for all")
    await _all([watcher.event_that(tells("for all")) for watcher in watchers])
    with_all = threads(baton, "gateway", service)
    # Libraries start and end some of theirs, whoever watches.
    assert with_all["gateway"] <= with_few["gateway"] + FEW_THREADS
    assert with_all[service] <= with_few[service] + DATABASE_THREADS + FEW_THREADS
