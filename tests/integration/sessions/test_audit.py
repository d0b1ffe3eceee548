"""The audit: what the outboxes bring is there once, in one chain, and cannot be changed unnoticed."""

import asyncio
import csv
import io
import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import sqlalchemy
from baton.api.v1.inbox_service_pb2 import DeliverMessagesRequest, OutboxMessage
from baton.api.v1.inbox_service_pb2_grpc import InboxServiceStub
from baton.sessions.v1 import audit_pb2
from baton.sessions.v1 import audit_service_pb2 as pb
from baton.sessions.v1.agent_service_pb2 import CreateAgentRequest
from baton.sessions.v1.audit_service_pb2_grpc import AuditServiceStub
from sqlalchemy import Connection, text

from services.chassis.errors import InvalidArgument, PermissionDenied
from services.chassis.ids import id_at, new_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import to_timestamp
from tests.integration.sessions.running import Sessions

ADA, EVE = new_id(), new_id()


def auditor(sessions: Sessions) -> AuditServiceStub:
    return AuditServiceStub(sessions.channel(sessions.signer.token(["audit:read"])))


def teller(sessions: Sessions, agent_id: str = ADA) -> AuditServiceStub:
    return AuditServiceStub(sessions.channel(sessions.signer.token(["logs:write"], agent_id=agent_id)))


def inbox(sessions: Sessions) -> InboxServiceStub:
    return InboxServiceStub(sessions.channel(sessions.signer.token(["messages:deliver"])))


def message(sessions: Sessions, **told: Any) -> OutboxMessage:
    """That something was done now, a moment after whatever was done before."""
    sessions.clock.advance(milliseconds=1)
    now = sessions.clock.now()
    entry = {"action": "run.approve", "actor": ADA, "resource": "run/1", "after": {"n": 1}, **told}
    return OutboxMessage(id=id_at(now), topic="audit", payload=orjson.dumps(entry), created_at=to_timestamp(now))


async def deliver(sessions: Sessions, *messages: OutboxMessage, source: str = "tasks") -> None:
    await inbox(sessions).DeliverMessages(DeliverMessagesRequest(source=source, messages=messages))


async def listed(sessions: Sessions, **filters: Any) -> list[audit_pb2.AuditEntry]:
    return list((await auditor(sessions).ListAuditEntries(pb.ListAuditEntriesRequest(**filters))).items)


async def verified(sessions: Sessions, **known: Any) -> pb.VerifyAuditResponse:
    return await auditor(sessions).VerifyAudit(pb.VerifyAuditRequest(**known))


@pytest.fixture
def intruder(database_url: str) -> Iterator[sqlalchemy.Engine]:
    """Somebody who may do anything to the database, and has no key."""
    if database_url.startswith("sqlite"):
        engine = sqlalchemy.create_engine(f"{database_url}/sessions.db")
        with engine.begin() as connection:
            for change in ("update", "delete"):
                connection.execute(text(f"DROP TRIGGER audit_entries_no_{change}"))
    else:
        engine = sqlalchemy.create_engine(
            database_url.replace("postgresql://", "postgresql+psycopg://"),
            connect_args={"options": "-c search_path=sessions -c session_replication_role=replica"},
        )
    yield engine
    engine.dispose()


async def test_an_entry_tells_all_that_there_is_to_tell(sessions: Sessions) -> None:
    told = {
        "before": {"status": "waiting"},
        "after": {"status": "approved"},
        "before_digest": "b" * 64,
        "after_digest": "a" * 64,
        "note": "as discussed",
        "request_id": "k1",
        "trace_id": "c" * 32,
        "run_id": new_id(),
    }
    sent = message(sessions, **told)
    sessions.clock.advance(seconds=2)
    await deliver(sessions, sent)
    (entry,) = await listed(sessions)
    assert (entry.sequence, entry.id, entry.context) == (1, sent.id, "tasks")
    assert (entry.actor, entry.action, entry.resource) == (ADA, "run.approve", "run/1")
    assert (from_struct(entry.before), from_struct(entry.after)) == (told["before"], told["after"])
    for name in ("before_digest", "after_digest", "note", "request_id", "trace_id", "run_id"):
        assert getattr(entry, name) == told[name], name
    assert entry.occurred_at == sent.created_at
    assert entry.recorded_at == to_timestamp(sessions.clock.now())


async def test_what_is_told_twice_is_there_once_and_the_chain_is_one(sessions: Sessions) -> None:
    batches = [[message(sessions, resource=f"run/{batch}.{index}") for index in range(5)] for batch in range(8)]
    # Several relays at once, each of which tells what another one has told already.
    await asyncio.gather(*(deliver(sessions, *batch) for batch in batches for _ in range(3)))
    entries = await listed(sessions, limit=200)
    assert [entry.sequence for entry in entries] == list(range(40, 0, -1))
    assert len({entry.id for entry in entries}) == 40
    answer = await verified(sessions)
    assert (answer.valid, answer.complete, answer.checked, answer.verified_to) == (True, True, 40, 40)
    assert answer.last_hash == entries[0].hash


async def test_what_is_done_in_this_context_is_in_it_too(sessions: Sessions) -> None:
    maker = new_id()
    created = await sessions.caller(["admin"], agent_id=maker).CreateAgent(
        CreateAgentRequest(name="scribe", scopes=["tasks:read"])
    )
    assert await listed(sessions, resource=f"agent/{created.agent.id}") == []
    await sessions.service.audit_relay.step()
    (entry,) = await listed(sessions, resource=f"agent/{created.agent.id}")
    assert (entry.context, entry.action, entry.actor) == ("sessions", "agent.create", maker)


async def test_filters(sessions: Sessions) -> None:
    run = new_id()
    await deliver(
        sessions,
        message(sessions, action="task.create", resource="task/1", actor=EVE),
        message(sessions, action="run.cancel", trace_id="d" * 32),
        message(sessions, action="run.approve", run_id=run, request_id="k7"),
        message(sessions, action="runner.stop"),
    )
    await deliver(sessions, message(sessions, action="workflow.advance"), source="workflows")

    async def actions(**filters: Any) -> list[str]:
        return [entry.action for entry in await listed(sessions, **filters)]

    assert await actions(actor=EVE.upper()) == ["task.create"]
    assert await actions(action="run.cancel") == ["run.cancel"]
    assert await actions(action="run.*") == ["run.approve", "run.cancel"]
    assert await actions(resource="task/1") == ["task.create"]
    assert await actions(context="workflows") == ["workflow.advance"]
    assert await actions(trace_id="d" * 32) == ["run.cancel"]
    assert await actions(run_id=run.upper()) == ["run.approve"]
    assert await actions(idempotency_key="k7") == ["run.approve"]
    second = (await listed(sessions, action="run.cancel"))[0].occurred_at
    assert await actions(until=second) == ["task.create"]
    assert await actions(since=second, action="run.*", actor=ADA) == ["run.approve", "run.cancel"]
    assert await actions(actor=EVE, action="run.*") == []


async def test_pages(sessions: Sessions) -> None:
    await deliver(sessions, *(message(sessions, resource=f"run/{index}") for index in range(5)))
    seen, request = [], pb.ListAuditEntriesRequest(limit=2)
    while True:
        page = await auditor(sessions).ListAuditEntries(request)
        seen += [entry.resource for entry in page.items]
        if not page.has_more:
            break
        request.cursor = page.next_cursor
    assert seen == [f"run/{index}" for index in (4, 3, 2, 1, 0)]
    with pytest.raises(InvalidArgument) as refused:
        await auditor(sessions).ListAuditEntries(pb.ListAuditEntriesRequest(cursor=request.cursor, actor=ADA))
    assert refused.value.reason == "CURSOR_INVALID"


async def test_the_file_has_the_same_rows_and_runs_no_formula(sessions: Sessions) -> None:
    await deliver(sessions, message(sessions, note="=1+1"), message(sessions, action="task.create"))
    chunks = [chunk.data async for chunk in auditor(sessions).ExportAuditEntries(pb.ExportAuditEntriesRequest())]
    rows = list(csv.DictReader(io.StringIO(b"".join(chunks).decode())))
    assert [row["action"] for row in rows] == ["task.create", "run.approve"]
    assert [row["hash"] for row in rows] == [entry.hash for entry in await listed(sessions)]
    assert rows[1]["note"] == "'=1+1"
    only = pb.ExportAuditEntriesRequest(action="task.*", limit=1)
    chunks = [chunk.data async for chunk in auditor(sessions).ExportAuditEntries(only)]
    assert len(b"".join(chunks).splitlines()) == 2


TAMPERINGS = [
    "UPDATE audit_entries SET actor = 'eve' WHERE sequence = {place}",
    "UPDATE audit_entries SET after = '{{}}' WHERE sequence = {place}",
    "UPDATE audit_entries SET hash = '{zeros}' WHERE sequence = {place}",
    "UPDATE audit_entries SET sequence = 1000 WHERE sequence = {place}",
    "DELETE FROM audit_entries WHERE sequence = {place}",
    "DELETE FROM audit_entries WHERE sequence >= {place}",
    "UPDATE audit_head SET sequence = {place} - 1, hash = coalesce((SELECT hash FROM audit_entries WHERE sequence = "
    "{place} - 1), '{zeros}')",
]


async def test_whatever_an_intruder_does_is_found(sessions: Sessions, intruder: sqlalchemy.Engine) -> None:
    await deliver(sessions, *(message(sessions, resource=f"run/{index}") for index in range(12)))
    chosen = random.Random(7)
    with intruder.connect() as connection:
        before = _contents(connection)
    for number in range(70):
        tampering, place = TAMPERINGS[number % len(TAMPERINGS)], chosen.randint(2, 12)
        with intruder.begin() as connection:
            connection.execute(text(tampering.format(place=place, zeros="0" * 64)))
        answer = await verified(sessions)
        assert not answer.valid, tampering
        assert answer.fault_count == len(answer.faults) >= 1
        with intruder.begin() as connection:
            _restore(connection, before)
    assert (await verified(sessions)).valid


def _contents(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    return {
        table: [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]
        for table in ("audit_entries", "audit_head")
    }


def _restore(connection: Connection, contents: dict[str, list[dict[str, Any]]]) -> None:
    for table, rows in contents.items():
        connection.execute(text(f"DELETE FROM {table}"))
        names = list(rows[0])
        quoted, values = ", ".join(f'"{name}"' for name in names), ", ".join(f":{name}" for name in names)
        connection.execute(text(f"INSERT INTO {table} ({quoted}) VALUES ({values})"), rows)


async def test_an_end_that_was_cut_off_and_noted_anew_is_found_by_a_hash_that_is_known(
    sessions: Sessions, intruder: sqlalchemy.Engine
) -> None:
    await deliver(sessions, *(message(sessions) for _ in range(3)))
    with intruder.connect() as connection:
        (old_end,) = _contents(connection)["audit_head"]
    await deliver(sessions, *(message(sessions) for _ in range(2)))
    known = await verified(sessions)
    assert (await verified(sessions, known_sequence=5, known_hash=known.last_hash)).valid
    with intruder.begin() as connection:
        # An old copy of the note is as good as the note was then.
        connection.execute(text("DELETE FROM audit_entries WHERE sequence > 3"))
        connection.execute(text("UPDATE audit_head SET sequence = :sequence, hash = :hash, seal = :seal"), old_end)
    assert (await verified(sessions)).valid
    answer = await verified(sessions, known_sequence=5, known_hash=known.last_hash)
    assert [(fault.sequence, fault.description) for fault in answer.faults] == [(5, "an entry was here")]


async def test_the_service_itself_cannot_change_an_entry(sessions: Sessions) -> None:
    await deliver(sessions, message(sessions))
    for change in ("UPDATE audit_entries SET actor = 'eve'", "DELETE FROM audit_entries"):
        with pytest.raises(sqlalchemy.exc.DBAPIError, match="never changed or removed"):
            sessions.database.run(lambda connection, clock: connection.execute(text(change)))  # noqa: B023
    assert (await verified(sessions)).checked == 1


async def test_it_can_be_verified_a_part_at_a_time(sessions: Sessions) -> None:
    await deliver(sessions, *(message(sessions) for _ in range(4)))
    part = await verified(sessions, after=2)
    assert (part.valid, part.checked, part.verified_to) == (True, 2, 4)
    beyond = await verified(sessions, after=99)
    assert (beyond.valid, beyond.checked) == (True, 0)
    with pytest.raises(InvalidArgument) as refused:
        await verified(sessions, known_sequence=3)
    assert [fault.field for fault in refused.value.violations] == ["known_hash"]


async def test_what_happened_elsewhere_is_told_once_as_what_it_is(sessions: Sessions) -> None:
    request = pb.IngestAuditRequest(
        source="goose",
        category="tool",
        action="file.write",
        subject="README.md",
        trace_id="e" * 32,
        content="wrote 3 lines",
        metadata=to_struct({"lines": 3}),
        request_id="once",
    )
    answers = [await teller(sessions).IngestAudit(request) for _ in range(2)]
    assert answers[0] == answers[1]
    await sessions.service.audit_relay.step()
    (entry,) = await listed(sessions)
    assert (entry.id, answers[0].status) == (answers[0].id, "accepted")
    assert (entry.action, entry.actor, entry.resource) == ("external.tool.file.write", ADA, "external/README.md")
    assert (entry.trace_id, entry.request_id) == ("e" * 32, "once")
    assert from_struct(entry.after) == {"source": "goose", "content": "wrote 3 lines", "metadata": {"lines": 3}}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"source": ""}, "source"),
        ({"category": "a.b"}, "category"),
        ({"action": "x" * 41}, "action"),
        ({"trace_id": "nonsense"}, "trace_id"),
        ({"content": "x" * 4001}, "content"),
        ({"metadata": to_struct({"x": "y" * 9000})}, "metadata"),
    ],
)
async def test_what_cannot_be_told_is_named_and_not_kept(sessions: Sessions, changes: Any, field: str) -> None:
    good = {"source": "goose", "category": "tool", "action": "used"}
    with pytest.raises(InvalidArgument) as refused:
        await teller(sessions).IngestAudit(pb.IngestAuditRequest(**good | changes))
    assert [fault.field for fault in refused.value.violations] == [field]
    await sessions.service.audit_relay.step()
    assert await listed(sessions) == []


async def test_only_auditors_read_it(sessions: Sessions) -> None:
    with pytest.raises(PermissionDenied):
        await teller(sessions).ListAuditEntries(pb.ListAuditEntriesRequest())
    with pytest.raises(PermissionDenied):
        await teller(sessions).VerifyAudit(pb.VerifyAuditRequest())
