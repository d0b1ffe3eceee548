"""What agents log."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from baton.sessions.v1 import log_pb2
from baton.sessions.v1.agent_service_pb2 import ArchiveAgentRequest
from baton.sessions.v1.log_service_pb2 import (
    AppendAgentLogsRequest,
    ListAgentLogsRequest,
    NewAgentLog,
    TailAgentLogsRequest,
)
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from services.chassis.clock import EPOCH
from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from services.chassis.ids import new_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions


def entry(content: str = "", **fields: Any) -> NewAgentLog:
    said = {"task_slug": "fix-it", "event_category": "EVENT_CATEGORY_RESPONSE", "event_type": "text"}
    return NewAgentLog(**said | {"content": content} | fields)


def append_request(agent_id: str, *entries: NewAgentLog, **fields: Any) -> AppendAgentLogsRequest:
    return AppendAgentLogsRequest(agent_id=agent_id, entries=entries or [entry()], **fields)


async def appended(sessions: Sessions, agent_id: str, *entries: NewAgentLog) -> list[int]:
    """Entries in the agent's log, which it has written itself; their numbers."""
    own = sessions.logs(["logs:write"], agent_id)
    return list((await own.AppendAgentLogs(append_request(agent_id, *entries))).entry_indexes)


async def listed(sessions: Sessions, agent_id: str, **fields: Any) -> list[log_pb2.AgentLog]:
    """All pages of an agent's log."""
    reader, items, request = sessions.logs(["logs:read"]), [], ListAgentLogsRequest(agent_id=agent_id, **fields)
    while True:
        page = await reader.ListAgentLogs(request)
        items += page.items
        assert page.has_more == page.HasField("next_cursor")
        if not page.has_more:
            return items
        request.cursor = page.next_cursor


def contents(items: Sequence[log_pb2.AgentLog]) -> list[str]:
    return [item.content for item in items]


async def test_what_is_written_can_be_read(sessions: Sessions) -> None:
    agent, workflow_id = await sessions.agent(), new_id()
    happened_at = sessions.clock.now() - timedelta(minutes=1)
    written = entry(
        "looks good",
        session_id="cli-1",
        payload=to_struct({"tool": "Bash", "input": {"n": [1, None]}}),
        summary="good",
        workflow_id=workflow_id.upper(),
        workflow_step="testing",
        timestamp=to_timestamp(happened_at),
    )
    assert await appended(
        sessions, agent.id, written, entry(event_type="Stop", event_category="EVENT_CATEGORY_HOOK")
    ) == [0, 1]
    newer, older = await listed(sessions, agent.id)
    assert (older.agent_id, older.task_slug, older.entry_index) == (agent.id, "fix-it", 0)
    assert (older.event_category, older.event_type) == (log_pb2.EVENT_CATEGORY_RESPONSE, "text")
    assert (older.content, older.summary, older.session_id) == ("looks good", "good", "cli-1")
    assert from_struct(older.payload) == {"tool": "Bash", "input": {"n": [1, None]}}
    assert (older.workflow_id, older.workflow_step) == (workflow_id, "testing")
    assert from_timestamp(older.timestamp) == happened_at
    assert from_timestamp(older.recorded_at) == sessions.clock.now()
    assert newer.timestamp == newer.recorded_at
    assert not newer.HasField("payload")
    assert newer.position == older.position + 1
    assert newer.id != older.id


async def test_each_piece_of_work_of_each_agent_is_numbered_by_itself(sessions: Sessions) -> None:
    one, other = await sessions.agent(), await sessions.agent()
    mixed = [entry(task_slug="a"), entry(task_slug="b"), entry(task_slug="a"), entry(task_slug="")]
    assert await appended(sessions, one.id, *mixed) == [0, 0, 1, 0]
    assert await appended(sessions, other.id, entry(task_slug="a")) == [0]
    assert await appended(sessions, one.id, *mixed) == [2, 1, 3, 1]


async def test_twenty_who_append_at_once_leave_no_gap_and_no_double(sessions: Sessions) -> None:
    agent = await sessions.agent()
    writers = [sessions.logs(["logs:write"], agent.id) for _ in range(20)]

    async def write(number: int) -> list[int]:
        indexes: list[int] = []
        for turn in range(5):
            entries = [entry(f"{number} {turn} {place}", task_slug="a") for place in range(3)]
            entries.insert(number % 3, entry(task_slug="b"))
            answer = await writers[number].AppendAgentLogs(append_request(agent.id, *entries))
            own = [index for index, one in zip(answer.entry_indexes, entries, strict=True) if one.task_slug == "a"]
            # A batch stays together.
            assert own == list(range(own[0], own[0] + 3))
            indexes += own
        assert indexes == sorted(indexes)
        return indexes

    taken = await asyncio.gather(*map(write, range(20)))
    assert sorted(index for indexes in taken for index in indexes) == list(range(300))
    kept = await listed(sessions, agent.id, task_slug="a", limit=200)
    assert [item.entry_index for item in kept] == list(range(299, -1, -1))
    assert [item.position for item in kept] == sorted((item.position for item in kept), reverse=True)
    assert len(await listed(sessions, agent.id, task_slug="b", limit=200)) == 100


async def test_the_database_itself_holds_no_number_twice(sessions: Sessions) -> None:
    agent = await sessions.agent()
    await appended(sessions, agent.id, entry(), entry())
    twice = update(tables.agent_logs).values(entry_index=0)
    with pytest.raises(IntegrityError):
        await sessions.database.transact(lambda connection, clock: connection.execute(twice))


async def test_a_batch_that_is_sent_again_is_written_once(sessions: Sessions) -> None:
    agent = await sessions.agent()
    own = sessions.logs(["logs:write"], agent.id)
    request = append_request(agent.id, entry("a"), entry("b"), request_id="batch-1")
    first = await own.AppendAgentLogs(request)
    again = await asyncio.gather(*(own.AppendAgentLogs(request) for _ in range(3)))
    assert [answer.entry_indexes for answer in again] == [first.entry_indexes] * 3
    assert contents(await listed(sessions, agent.id)) == ["b", "a"]
    with pytest.raises(InvalidArgument) as refused:
        await own.AppendAgentLogs(append_request(agent.id, entry("c"), request_id="batch-1"))
    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_batches_that_share_a_transaction_do_not_share_their_failure(sessions: Sessions) -> None:
    good, archived, unknown = (await sessions.agent()).id, (await sessions.agent()).id, new_id()
    await sessions.caller(["admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=archived))
    admin = sessions.logs()
    calls = [admin.AppendAgentLogs(append_request(agent_id)) for agent_id in (good, archived, unknown) * 5]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(answer.entry_indexes[0] for answer in answers[::3]) == [0, 1, 2, 3, 4]  # type: ignore[union-attr]
    assert all(isinstance(answer, FailedPrecondition) for answer in answers[1::3])
    assert all(isinstance(answer, NotFound) for answer in answers[2::3])
    assert await sessions.count(tables.agent_logs) == 5


BAD: list[tuple[dict[str, Any], str]] = [
    ({"event_category": 0}, "event_category"),
    ({"event_category": 9}, "event_category"),
    ({"event_type": ""}, "event_type"),
    ({"event_type": "two words"}, "event_type"),
    ({"event_type": "t" * 65}, "event_type"),
    ({"task_slug": "s" * 101}, "task_slug"),
    ({"session_id": "s" * 201}, "session_id"),
    ({"content": "c" * 32_769}, "content"),
    ({"content": "a\x00b"}, "content"),
    ({"summary": "s" * 2001}, "summary"),
    ({"workflow_id": "7"}, "workflow_id"),
    ({"workflow_step": "w" * 101}, "workflow_step"),
    ({"payload": to_struct({"a": "x" * 66_000})}, "payload"),
]


@pytest.mark.parametrize(("fields", "field"), BAD)
async def test_one_bad_entry_refuses_the_batch_and_is_named(
    sessions: Sessions, fields: dict[str, Any], field: str
) -> None:
    agent = await sessions.agent()
    with pytest.raises(InvalidArgument) as refused:
        await appended(sessions, agent.id, entry("good"), entry(**fields), entry("good"))
    assert [violation.field for violation in refused.value.violations] == [f"entries[1].{field}"]
    assert await sessions.count(tables.agent_logs) == 0


async def test_a_payload_that_nobody_could_read_is_refused(sessions: Sessions) -> None:
    agent, deep = await sessions.agent(), {}
    for _ in range(21):
        deep = {"a": deep}
    with pytest.raises(InvalidArgument, match="nested deeper") as refused:
        await appended(sessions, agent.id, entry(), entry(payload=to_struct(deep)))
    assert refused.value.violations[0].field == "entries[1].payload"


async def test_a_batch_has_one_to_a_thousand_entries(sessions: Sessions) -> None:
    agent = await sessions.agent()
    own = sessions.logs(["logs:write"], agent.id)
    for entries in ([], [entry()] * 1001):
        with pytest.raises(InvalidArgument) as refused:
            await own.AppendAgentLogs(AppendAgentLogsRequest(agent_id=agent.id, entries=entries))
        assert [violation.field for violation in refused.value.violations] == ["entries"]
    assert len(await appended(sessions, agent.id, *([entry("x" * 32_768)] + [entry()] * 999))) == 1000


async def test_nobody_writes_the_log_of_another_one(sessions: Sessions) -> None:
    one, other = await sessions.agent(), await sessions.agent()
    with pytest.raises(PermissionDenied) as refused:
        await sessions.logs(["logs:write"], one.id).AppendAgentLogs(append_request(other.id))
    assert refused.value.metadata == {"scope": "agents:admin"}
    assert await sessions.count(tables.agent_logs) == 0
    await sessions.logs(["logs:write", "agents:admin"], one.id).AppendAgentLogs(append_request(other.id))
    assert len(await listed(sessions, other.id)) == 1


async def test_an_archived_agent_keeps_its_log_and_writes_no_more(sessions: Sessions) -> None:
    agent = await sessions.agent()
    await appended(sessions, agent.id, entry("last words"))
    await sessions.caller(["admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=agent.id))
    with pytest.raises(FailedPrecondition) as refused:
        await appended(sessions, agent.id)
    assert refused.value.reason == "AGENT_ARCHIVED"
    assert contents(await listed(sessions, agent.id)) == ["last words"]
    tail = await sessions.logs(["logs:read"]).TailAgentLogs(TailAgentLogsRequest(agent_id=agent.id, verbose=True))
    assert contents(tail.items) == ["last words"]


async def test_each_filter_finds_its_own(sessions: Sessions) -> None:
    agent, workflow_id = await sessions.agent(), new_id()
    hook = {"event_category": "EVENT_CATEGORY_HOOK", "event_type": "PreToolUse"}
    await appended(sessions, agent.id, entry("plain"), entry("hook", **hook), entry("think", event_type="thinking"))
    sessions.clock.advance(seconds=60)
    middle = sessions.clock.now()
    await appended(sessions, agent.id, entry("other work", task_slug="other"), entry("session", session_id="cli-1"))
    sessions.clock.advance(seconds=60)
    await appended(sessions, agent.id, entry("workflow", workflow_id=workflow_id))
    late = sessions.clock.now()

    async def found(**fields: Any) -> list[str]:
        assert contents(await listed(sessions, agent.id, limit=1, **fields)) == contents(
            await listed(sessions, agent.id, **fields)
        )
        return contents(await listed(sessions, agent.id, **fields))

    assert await found() == ["workflow", "session", "other work", "think", "hook", "plain"]
    assert await found(task_slug="other") == ["other work"]
    assert await found(event_category="EVENT_CATEGORY_HOOK") == ["hook"]
    assert await found(event_type=["PreToolUse", "thinking"]) == ["think", "hook"]
    assert await found(session_id="cli-1") == ["session"]
    assert await found(workflow_id=workflow_id.upper()) == ["workflow"]
    assert await found(since=to_timestamp(middle)) == ["workflow", "session", "other work"]
    assert await found(until=to_timestamp(middle)) == ["think", "hook", "plain"]
    assert await found(since=to_timestamp(middle), until=to_timestamp(late)) == ["session", "other work"]
    assert await found(since=to_timestamp(late + timedelta(seconds=1))) == []
    assert await found(until=to_timestamp(EPOCH)) == []
    assert await found(task_slug="other", event_category="EVENT_CATEGORY_HOOK") == []


async def test_a_cursor_fits_its_list_alone(sessions: Sessions) -> None:
    agent = await sessions.agent()
    await appended(sessions, agent.id, entry(), entry())
    reader = sessions.logs(["logs:read"])
    page = await reader.ListAgentLogs(ListAgentLogsRequest(agent_id=agent.id, limit=1))
    for request in (
        ListAgentLogsRequest(agent_id=agent.id, cursor=page.next_cursor, task_slug="fix-it"),
        ListAgentLogsRequest(agent_id=agent.id, cursor="made up"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await reader.ListAgentLogs(request)
        assert refused.value.reason == "CURSOR_INVALID"


async def test_the_tail_is_the_end_of_the_latest_work_in_order(sessions: Sessions) -> None:
    agent = await sessions.agent()
    reader = sessions.logs(["logs:read"])
    nothing = await reader.TailAgentLogs(TailAgentLogsRequest(agent_id=agent.id))
    assert (list(nothing.items), nothing.task_slug, nothing.next_index) == ([], "", 0)
    entries = [entry(f"{n}", summary=f"short {n}", payload=to_struct({"n": n})) for n in range(15)]
    await appended(sessions, agent.id, entry(task_slug="earlier"), *entries)
    tail = await reader.TailAgentLogs(TailAgentLogsRequest(agent_id=agent.id))
    assert [item.entry_index for item in tail.items] == list(range(5, 15))
    assert (tail.task_slug, tail.next_index) == ("fix-it", 15)
    assert {(item.content, item.HasField("payload")) for item in tail.items} == {("", False)}
    assert tail.items[0].summary == "short 5"
    verbose = TailAgentLogsRequest(agent_id=agent.id, limit=2, offset=3, verbose=True)
    assert contents((await reader.TailAgentLogs(verbose)).items) == ["10", "11"]
    other = await reader.TailAgentLogs(TailAgentLogsRequest(agent_id=agent.id, task_slug="earlier"))
    assert (len(other.items), other.next_index) == (1, 1)
    for fields in ({"limit": 0}, {"limit": 201}, {"offset": 10_001}, {"offset": -1}):
        with pytest.raises(InvalidArgument):
            await reader.TailAgentLogs(TailAgentLogsRequest(agent_id=agent.id, **fields))


async def test_the_log_of_nobody_is_not_found(sessions: Sessions) -> None:
    reader, nobody = sessions.logs(["logs:read"]), new_id()
    for call in (
        reader.ListAgentLogs(ListAgentLogsRequest(agent_id=nobody)),
        reader.TailAgentLogs(TailAgentLogsRequest(agent_id=nobody)),
    ):
        with pytest.raises(NotFound) as refused:
            await call
        assert refused.value.reason == "AGENT_NOT_FOUND"


async def test_positions_and_times_go_on_even_when_the_clock_goes_back(sessions: Sessions) -> None:
    agent = await sessions.agent()
    await appended(sessions, agent.id, entry("first"))
    sessions.clock.advance(seconds=-60)
    await appended(sessions, agent.id, entry("second"))
    second, first = await listed(sessions, agent.id)
    assert (second.content, second.recorded_at) == ("second", first.recorded_at)


async def test_log_append_leaves_no_audit(sessions: Sessions) -> None:
    agent = await sessions.agent()
    before = len(await sessions.audited())
    await appended(sessions, agent.id)
    assert len(await sessions.audited()) == before


async def test_agents_with_logs_are_never_deleted_with_them(sessions: Sessions) -> None:
    """The database itself refuses it: logs go by retention alone."""
    agent = await sessions.agent()
    await appended(sessions, agent.id)
    with pytest.raises(IntegrityError):
        await sessions.database.transact(
            lambda connection, clock: connection.execute(tables.agents.delete().where(tables.agents.c.id == agent.id))
        )
    rows = await sessions.database.read(
        lambda connection, clock: connection.execute(select(tables.agent_logs.c.agent_id)).scalars().all()
    )
    assert rows == [agent.id]
