"""The system log."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from baton.sessions.v1 import log_pb2
from baton.sessions.v1.log_service_pb2 import AppendSystemLogsRequest, ListSystemLogsRequest, NewSystemLog

from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import to_timestamp
from services.sessions.store import system_log, tables
from tests.integration.sessions.running import Sessions


def line(message: str, level: str = "LOG_LEVEL_INFO", **fields: Any) -> NewSystemLog:
    return NewSystemLog(message=message, level=level, **fields)


async def appended(sessions: Sessions, *lines: NewSystemLog, agent_id: str | None = None, **fields: Any) -> int:
    request = AppendSystemLogsRequest(entries=lines, **fields)
    return (await sessions.logs(["logs:write"], agent_id).AppendSystemLogs(request)).first_position


async def listed(sessions: Sessions, **fields: Any) -> list[log_pb2.SystemLog]:
    """All pages."""
    reader, items, request = sessions.logs(["logs:read"]), [], ListSystemLogsRequest(**fields)
    while True:
        page = await reader.ListSystemLogs(request)
        items += page.items
        if not page.has_more:
            return items
        request.cursor = page.next_cursor


def messages(items: Sequence[log_pb2.SystemLog]) -> list[str]:
    return [item.message for item in items]


async def test_what_is_written_can_be_read(sessions: Sessions) -> None:
    writer, workflow_id = new_id(), new_id()
    first = await appended(
        sessions,
        line(
            "disk is full",
            "LOG_LEVEL_ERROR",
            file_path="/var/log/x",
            summary="full",
            metadata=to_struct({"free": 0}),
            workflow_id=workflow_id,
            workflow_step="testing",
        ),
        line("later"),
        agent_id=writer,
    )
    newer, older = await listed(sessions)
    assert (older.position, newer.position) == (first, first + 1)
    assert (older.agent_id, older.level, older.message) == (writer, log_pb2.LOG_LEVEL_ERROR, "disk is full")
    assert (older.file_path, older.summary, from_struct(older.metadata)) == ("/var/log/x", "full", {"free": 0})
    assert (older.workflow_id, older.workflow_step) == (workflow_id, "testing")
    assert older.timestamp == older.recorded_at == to_timestamp(sessions.clock.now())
    assert not newer.HasField("metadata")


async def test_each_filter_finds_its_own(sessions: Sessions) -> None:
    writer, workflow_id = new_id(), new_id()
    await appended(sessions, line("debug", "LOG_LEVEL_DEBUG"), line("Straße 7% _a", "LOG_LEVEL_WARNING"))
    sessions.clock.advance(seconds=60)
    middle = to_timestamp(sessions.clock.now())
    await appended(sessions, line("mine", workflow_id=workflow_id), agent_id=writer)

    async def found(**fields: Any) -> list[str]:
        assert messages(await listed(sessions, limit=1, **fields)) == messages(await listed(sessions, **fields))
        return messages(await listed(sessions, **fields))

    assert await found() == ["mine", "Straße 7% _a", "debug"]
    assert await found(level=["LOG_LEVEL_DEBUG", "LOG_LEVEL_WARNING"]) == ["Straße 7% _a", "debug"]
    assert await found(agent_id=writer.upper()) == ["mine"]
    assert await found(workflow_id=workflow_id) == ["mine"]
    assert await found(since=middle) == ["mine"]
    assert await found(until=middle) == ["Straße 7% _a", "debug"]
    assert await found(message_contains="STRA") == ["Straße 7% _a"]
    # Nothing in it means anything but itself.
    assert await found(message_contains="7% _") == ["Straße 7% _a"]
    assert await found(message_contains=".*") == []
    assert await found(message_contains="e", level=["LOG_LEVEL_DEBUG"]) == ["debug"]


async def test_a_search_looks_through_so_much_at_a_time_and_misses_nothing(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_log, "LOOKED_THROUGH", 3)
    await appended(sessions, *(line("needle" if n in (0, 4) else f"hay {n}") for n in range(10)))
    request = ListSystemLogsRequest(message_contains="NEEDLE")
    page = await sessions.logs(["logs:read"]).ListSystemLogs(request)
    assert (list(page.items), page.has_more) == ([], True)
    assert messages(await listed(sessions, message_contains="NEEDLE")) == ["needle", "needle"]
    assert messages(await listed(sessions, message_contains="NEEDLE", limit=1)) == ["needle", "needle"]


async def test_lines_that_are_sent_again_are_written_once(sessions: Sessions) -> None:
    writer = new_id()
    places = [await appended(sessions, line("once"), agent_id=writer, request_id="key") for _ in range(3)]
    assert len(set(places)) == 1
    assert await sessions.count(tables.system_logs) == 1


async def test_many_who_append_at_once_get_places_of_their_own(sessions: Sessions) -> None:
    calls = (appended(sessions, *[line(f"{n}")] * 3) for n in range(20))
    firsts = await asyncio.gather(*calls)
    assert sorted(firsts) == list(range(1, 61, 3))
    assert [item.position for item in await listed(sessions)] == list(range(60, 0, -1))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"level": 0}, "level"),
        ({"message": ""}, "message"),
        ({"message": "m" * 16_385}, "message"),
        ({"file_path": "p" * 1025}, "file_path"),
        ({"summary": "s" * 2001}, "summary"),
        ({"metadata": to_struct({"a": "x" * 17_000})}, "metadata"),
        ({"workflow_id": "7"}, "workflow_id"),
        ({"workflow_step": "w" * 101}, "workflow_step"),
    ],
)
async def test_one_bad_line_refuses_the_batch_and_is_named(
    sessions: Sessions, fields: dict[str, Any], field: str
) -> None:
    bad = NewSystemLog(**{"level": "LOG_LEVEL_INFO", "message": "bad"} | fields)
    with pytest.raises(InvalidArgument) as refused:
        await appended(sessions, line("good"), bad)
    assert [violation.field for violation in refused.value.violations] == [f"entries[1].{field}"]
    assert await sessions.count(tables.system_logs) == 0


async def test_system_log_append_leaves_no_audit(sessions: Sessions) -> None:
    await appended(sessions, line("quiet"))
    assert await sessions.audited() == []
