"""Five hundred who watch through one gateway: all of them are told, and none of them costs a thread."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.baton import Baton, task

WATCHERS, FEW = 500, 20
# A service has this many database threads at most, and they begin when they are first needed.
DATABASE_THREADS = 8
PATIENCE_SECONDS = 90


class Watcher:
    """One connection, and the events on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def event(self) -> Any:
        """The data of the next event."""
        while not (line := await self._reader.readline()).startswith(b"data: "):
            assert line, "the stream has ended"
        return json.loads(line.removeprefix(b"data: "))

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


@pytest.mark.timeout(240)
async def test_all_who_watch_the_feed_are_told_and_none_costs_a_thread(baton: Baton) -> None:
    def write(text: str) -> None:
        line = {"entries": [{"level": "info", "message": text}]}
        assert baton.call("POST", "/system-logs", line).status_code == 201

    def tells(text: str) -> Callable[[Any], bool]:
        return lambda told: told["entry"] is not None and (told["entry"]["system_log"] or {}).get("message") == text

    await _are_told(baton, "sessions", "/feed:watch?source_type=system_log", write, tells)


@pytest.mark.timeout(240)
async def test_all_who_watch_runs_are_told_and_none_costs_a_thread(baton: Baton) -> None:
    def run(title: str) -> None:
        baton.run_now(baton.create("/tasks", task(title, {"uses": "echo.test"}))["id"])

    def tells(title: str) -> Callable[[Any], bool]:
        return lambda told: told["run"] is not None and told["run"]["task"] == title

    await _are_told(baton, "tasks", "/runs:watch?status=succeeded", run, tells)


async def _are_told(
    baton: Baton,
    service: str,
    path: str,
    cause: Callable[[str], None],
    tells: Callable[[str], Callable[[Any], bool]],
) -> None:
    """`cause` makes something happen, and what `tells` of it is true of one event of each who watches."""
    watchers = await _all([watching(baton, path) for _ in range(FEW)])
    await asyncio.to_thread(cause, "for few")
    await _all([watcher.event_that(tells("for few")) for watcher in watchers])
    with_few = threads(baton, "gateway", service)
    # As many connections at a time as a busy machine accepts without delay.
    while len(watchers) < WATCHERS:
        watchers += await _all([watching(baton, path) for _ in range(min(60, WATCHERS - len(watchers)))])
    await asyncio.to_thread(cause, "for all")
    await _all([watcher.event_that(tells("for all")) for watcher in watchers])
    with_all = threads(baton, "gateway", service)
    assert with_all["gateway"] == with_few["gateway"]
    assert with_all[service] <= with_few[service] + DATABASE_THREADS
    for watcher in watchers:
        watcher.leave()
