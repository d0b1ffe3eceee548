"""Sessions that end by themselves, and what keeps them alive."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from baton.sessions.v1.session_pb2 import Session
from sqlalchemy import insert, text

from services.chassis.config import ConfigurationError
from services.chassis.errors import FailedPrecondition, ServiceError
from services.chassis.ids import new_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import from_timestamp
from services.sessions.expiry import SessionExpiry
from services.sessions.models.session import SessionStatus
from services.sessions.operations.session import EXPIRY_BATCH
from services.sessions.service import build
from services.sessions.store import session as store
from services.sessions.store import tables
from tests.integration.sessions.lifecycles import Owner, owner_of, told, wire
from tests.integration.sessions.running import Sessions

MICROSECOND = 1e-6
OPEN = (SessionStatus.PENDING, SessionStatus.ACTIVE, SessionStatus.PAUSED)


@pytest.fixture
async def owner(sessions: Sessions) -> Owner:
    return await owner_of(sessions)


async def expire(sessions: Sessions) -> float:
    return await sessions.service.session_expiry.step()


async def moved(owner: Owner, session_id: str) -> tuple[str, str]:
    """Of the last transition, the reason and who did it."""
    last = (await owner.transitions(session_id))[-1]
    return last.reason, last.actor


@pytest.mark.parametrize("status", OPEN)
async def test_what_is_idle_for_long_enough_expires(sessions: Sessions, owner: Owner, status: SessionStatus) -> None:
    session_id = await owner.begin(status, idle_timeout_seconds=60)
    sessions.clock.advance(seconds=60 - MICROSECOND)
    assert await expire(sessions) == 1
    assert await owner.status(session_id) == status
    sessions.clock.advance(seconds=MICROSECOND)
    await expire(sessions)
    session = await owner.read(session_id)
    assert session.state == wire(SessionStatus.EXPIRED)
    assert await moved(owner, session_id) == ("idle_timeout", "baton.expiry")
    assert (await owner.path(session_id))[-1] == (status, "expired")
    assert from_timestamp(session.expired_at) == from_timestamp(session.updated_at) == sessions.clock.now()
    # What ends it is no activity of its own.
    assert from_timestamp(session.last_activity_at) == sessions.clock.now() - timedelta(seconds=60)
    assert not session.HasField("expires_at")


@pytest.mark.parametrize("status", OPEN)
async def test_what_is_old_enough_expires_however_busy(sessions: Sessions, owner: Owner, status: SessionStatus) -> None:
    session_id = await owner.begin(status, max_lifetime_seconds=100, idle_timeout_seconds=60)
    for _ in range(2):
        sessions.clock.advance(seconds=49)
        await owner.heartbeat(session_id)
    await expire(sessions)
    assert await owner.status(session_id) == status
    sessions.clock.advance(seconds=2)
    await expire(sessions)
    assert await owner.status(session_id) == SessionStatus.EXPIRED
    assert await moved(owner, session_id) == ("max_lifetime", "baton.expiry")


@pytest.mark.parametrize("status", OPEN)
async def test_what_is_silent_for_seven_days_expires_whatever_it_says(
    sessions: Sessions, owner: Owner, status: SessionStatus
) -> None:
    session_id = await owner.begin(status)
    # It was created long before, which does not count.
    sessions.clock.advance(days=6)
    await owner.heartbeat(session_id)
    sessions.clock.advance(days=7, seconds=-MICROSECOND)
    await expire(sessions)
    assert await owner.status(session_id) == status
    sessions.clock.advance(seconds=MICROSECOND)
    await expire(sessions)
    assert await owner.status(session_id) == SessionStatus.EXPIRED
    assert await moved(owner, session_id) == ("retention", "baton.expiry")


@pytest.mark.parametrize("status", [SessionStatus.COMPLETED, SessionStatus.FAILED, SessionStatus.EXPIRED])
async def test_what_has_ended_stays_as_it_is(sessions: Sessions, owner: Owner, status: SessionStatus) -> None:
    session_id = await owner.begin(status, idle_timeout_seconds=1, max_lifetime_seconds=1)
    before = await owner.read(session_id)
    sessions.clock.advance(days=400)
    await expire(sessions)
    assert await owner.read(session_id) == before


async def test_changes_events_and_heartbeats_are_activity(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin(idle_timeout_seconds=10)
    acts = (
        lambda: owner.update(session_id, task_id=new_id()),
        lambda: owner.update(session_id),
        lambda: owner.send(session_id, "activate"),
        lambda: owner.send(session_id, "activate"),
        lambda: owner.heartbeat(session_id),
    )
    for act in acts:
        sessions.clock.advance(seconds=9)
        answer = await act()
        assert from_timestamp(answer.last_activity_at) == sessions.clock.now()
        assert from_timestamp(answer.expires_at) == sessions.clock.now() + timedelta(seconds=10)
        await expire(sessions)
        assert await owner.status(session_id) != SessionStatus.EXPIRED


async def test_a_timeout_that_is_changed_counts_from_then_on(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin(idle_timeout_seconds=10)
    await owner.update(session_id, idle_timeout_seconds=1000, max_lifetime_seconds=20)
    sessions.clock.advance(seconds=15)
    await expire(sessions)
    assert await owner.status(session_id) == SessionStatus.PENDING
    sessions.clock.advance(seconds=5)
    await expire(sessions)
    assert await moved(owner, session_id) == ("max_lifetime", "baton.expiry")


async def test_a_heartbeat_says_that_a_session_is_alive_and_nothing_else(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin(SessionStatus.ACTIVE, idle_timeout_seconds=60)
    before, rows = await owner.read(session_id), await sessions.count(tables.outbox)
    sessions.clock.advance(seconds=5)
    answer = await owner.heartbeat(session_id)
    assert (answer.session_id, answer.state) == (session_id, before.state)
    assert from_timestamp(answer.last_activity_at) == sessions.clock.now()
    assert from_timestamp(answer.expires_at) == sessions.clock.now() + timedelta(seconds=60)
    after = await owner.read(session_id)
    expected = Session()
    expected.CopyFrom(before)
    expected.last_activity_at.CopyFrom(answer.last_activity_at)
    expected.expires_at.CopyFrom(answer.expires_at)
    assert after == expected
    assert await sessions.count(tables.outbox) == rows


async def test_fifty_heartbeats_at_once_are_all_heard(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin(SessionStatus.ACTIVE, idle_timeout_seconds=60)
    sessions.clock.advance(seconds=59)
    await asyncio.gather(*(owner.heartbeat(session_id) for _ in range(50)))
    session = await owner.read(session_id)
    assert (session.version, session.state) == (2, wire(SessionStatus.ACTIVE))
    assert from_timestamp(session.last_activity_at) == sessions.clock.now()


@pytest.mark.parametrize("status", [SessionStatus.COMPLETED, SessionStatus.FAILED, SessionStatus.EXPIRED])
async def test_what_has_ended_is_not_alive(owner: Owner, status: SessionStatus) -> None:
    session_id = await owner.begin(status)
    with pytest.raises(FailedPrecondition, match=f"is {status}, which is final") as refused:
        await owner.heartbeat(session_id)
    assert (refused.value.reason, refused.value.metadata["status"]) == ("SESSION_ENDED", status)


async def test_whose_time_is_over_has_expired_before_the_loop_comes_round(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin(SessionStatus.ACTIVE, idle_timeout_seconds=60)
    sessions.clock.advance(seconds=60)
    with pytest.raises(FailedPrecondition, match="is expired") as refused:
        await owner.heartbeat(session_id)
    assert refused.value.reason == "SESSION_ENDED"
    for attempt in (owner.send(session_id, "pause"), owner.update(session_id, status=wire(SessionStatus.COMPLETED))):
        with pytest.raises(FailedPrecondition, match="is expired") as refused:
            await attempt
        assert refused.value.metadata["from"] == "expired"
    # What may be said of an ended session still may, and it has ended by then.
    after = await owner.update(session_id, metadata=to_struct({"note": "too late"}))
    assert (after.state, from_struct(after.metadata)) == (wire(SessionStatus.EXPIRED), {"note": "too late"})
    assert await moved(owner, session_id) == ("idle_timeout", "baton.expiry")
    assert await owner.path(session_id) == [("pending", "active"), ("active", "expired")]


async def test_expiry_and_heartbeats_at_once_agree(sessions: Sessions, owner: Owner) -> None:
    late = [await owner.begin(idle_timeout_seconds=10) for _ in range(10)]
    sessions.clock.advance(seconds=5)
    early = [await owner.begin(idle_timeout_seconds=10) for _ in range(10)]
    sessions.clock.advance(seconds=5)

    async def attempt(session_id: str) -> str:
        try:
            await owner.heartbeat(session_id)
        except ServiceError as error:
            return error.reason
        return "alive"

    beats = [attempt(session_id) for pair in zip(late, early, strict=True) for session_id in pair]
    *answers, _, _ = await asyncio.gather(*beats, expire(sessions), expire(sessions))
    assert answers == ["SESSION_ENDED", "alive"] * 10
    # What somebody had locked meanwhile is left to the next round.
    await expire(sessions)
    assert {await owner.status(session_id) for session_id in late} == {SessionStatus.EXPIRED}
    assert {await owner.status(session_id) for session_id in early} == {SessionStatus.PENDING}


async def test_replicas_expire_a_session_once(sessions: Sessions, owner: Owner) -> None:
    found = [await owner.begin(idle_timeout_seconds=1) for _ in range(20)]
    sessions.clock.advance(seconds=1)
    await asyncio.gather(*(expire(sessions) for _ in range(5)))
    await expire(sessions)
    assert [await owner.path(session_id) for session_id in found] == [[("pending", "expired")]] * 20
    events = [one for one in await told(sessions, "event") if one["topic"] == "session.expired"]
    assert len(events) == 20


async def test_an_expiry_is_told(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin(SessionStatus.ACTIVE, idle_timeout_seconds=1)
    sessions.clock.advance(seconds=1)
    await expire(sessions)
    entry, event = (await told(sessions, "audit"))[-1], (await told(sessions, "event"))[-1]
    assert (entry["action"], entry["actor"], entry["note"]) == ("session.expire", "baton.expiry", "idle_timeout")
    assert (entry["before"], entry["after"]) == ({"status": "active"}, {"status": "expired"})
    assert event["topic"] == "session.expired"
    payload = event["payload"]
    assert (payload["session_id"], payload["previous_status"], payload["reason"]) == (
        *(session_id, "active", "idle_timeout"),
    )


async def test_many_expire_in_batches(sessions: Sessions, owner: Owner) -> None:
    now = sessions.clock.now()
    row = {"agent_role": "planner", "agent_id": owner.agent_id, "status": "active", "metadata": {}, "version": 1}
    times = dict.fromkeys(("created_at", "updated_at", "last_activity_at", "expires_at"), now)
    rows = [row | times | {"id": new_id(), "idle_timeout_seconds": 1} for _ in range(EXPIRY_BATCH + 5)]
    await sessions.database.transact(lambda connection, clock: connection.execute(insert(tables.sessions), rows))
    sessions.clock.advance(seconds=1)
    assert [await expire(sessions), await expire(sessions)] == [0.0, 1.0]
    assert await sessions.count(tables.session_transitions) == EXPIRY_BATCH + 5


async def test_without_a_retention_silence_is_for_ever(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin()
    sessions.clock.advance(days=3000)
    assert await SessionExpiry(sessions.database, None).step() == 1.0
    assert await owner.status(session_id) == SessionStatus.PENDING
    assert await SessionExpiry(sessions.database, timedelta(days=2999)).step() == 1.0
    assert await owner.status(session_id) == SessionStatus.EXPIRED


@pytest.mark.parametrize("days", [-1, 36_501])
@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_a_retention_that_cannot_be_is_refused_at_the_start(sessions: Sessions, days: int) -> None:
    with pytest.raises(ConfigurationError, match="SESSION_RETENTION_DAYS"):
        build(replace(sessions.settings, session_retention_days=days))


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_a_session_that_somebody_has_locked_keeps_no_other_waiting(
    sessions: Sessions, owner: Owner, database_url: str
) -> None:
    locked, free = [await owner.begin(idle_timeout_seconds=1) for _ in range(2)]
    sessions.clock.advance(seconds=1)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM sessions.sessions WHERE id = %s FOR UPDATE", [locked])
        await asyncio.wait_for(expire(sessions), 5)
        assert [await owner.status(one) for one in (locked, free)] == ["pending", "expired"]
    await expire(sessions)
    assert await owner.status(locked) == "expired"


async def test_what_is_due_is_found_by_its_indexes(sessions: Sessions, owner: Owner) -> None:
    def plan(connection: Any, clock: Any) -> str:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        seen: list[str] = []
        inner = connection.execute

        def explained(query: Any) -> Any:
            prefix = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
            compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
            seen.extend(str(row) for row in inner(text(f"{prefix} {compiled}")))
            return inner(query)

        connection.execute = explained
        store.lock_due(connection, now=clock.now(), silent_since=clock.now(), limit=100)
        return "\n".join(seen)

    found = await sessions.database.read(plan)
    assert "ix_sessions_expires_at" in found
    assert "ix_sessions_last_activity_at" in found
