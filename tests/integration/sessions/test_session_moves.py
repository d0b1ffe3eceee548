"""How a session's status changes, whichever way it is changed."""

import asyncio
from itertools import product

import pytest
from baton.sessions.v1.session_service_pb2 import ListSessionTransitionsRequest, SendSessionEventRequest

from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound, ServiceError
from services.chassis.ids import new_id
from services.chassis.timestamps import from_timestamp
from services.sessions.models.session import SessionEvent, SessionStatus
from services.sessions.store import tables
from tests.integration.sessions.lifecycles import Owner, owner_of, told, wire
from tests.integration.sessions.running import Sessions


@pytest.fixture
async def owner(sessions: Sessions) -> Owner:
    return await owner_of(sessions)


async def test_every_pair_of_statuses_by_update(owner: Owner) -> None:
    for old, new in product(SessionStatus, SessionStatus):
        session_id = await owner.begin(old)
        before = await owner.read(session_id)
        if new in old.followers or (new == old and not old.is_final):
            after = await owner.update(session_id, status=wire(new))
            assert after.state == wire(new), (old, new)
            assert after.version == before.version + (new != old)
            continue
        with pytest.raises(FailedPrecondition) as refused:
            await owner.update(session_id, status=wire(new))
        allowed = ", ".join(old.followers)
        assert refused.value.reason == "SESSION_TRANSITION_ILLEGAL"
        assert refused.value.metadata == {"session_id": session_id, "from": old, "to": new, "allowed": allowed}
        assert f"is {old} and cannot become {new}" in refused.value.message
        assert (allowed or "is final") in refused.value.message
        assert await owner.read(session_id) == before


async def test_every_pair_of_status_and_event(owner: Owner) -> None:
    for old, event in product(SessionStatus, SessionEvent):
        session_id = await owner.begin(old)
        before = await owner.read(session_id)
        if event in old.events or (event.leads_to == old and not old.is_final):
            assert (await owner.send(session_id, event)).state == wire(event.leads_to), (old, event)
            continue
        with pytest.raises(FailedPrecondition) as refused:
            await owner.send(session_id, event)
        assert refused.value.reason == "SESSION_TRANSITION_ILLEGAL"
        assert f"cannot become {event.leads_to} by '{event}': " in refused.value.message
        named = {name: refused.value.metadata[name] for name in ("event", "from", "to", "allowed")}
        assert named == {"event": event, "from": old, "to": event.leads_to, "allowed": ", ".join(old.events)}
        assert await owner.read(session_id) == before


async def test_each_transition_is_a_row_with_a_reason_and_who_did_it(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin()
    await owner.send(session_id, "activate", reason="the task is due")
    sessions.clock.advance(seconds=5)
    await owner.update(session_id, status=wire(SessionStatus.PAUSED), reason="lunch")
    administrator = Owner(sessions, new_id(), sessions.lifecycle(admin := new_id(), "admin"))
    await administrator.update(session_id, status=wire(SessionStatus.EXPIRED))
    first, second, third = await owner.transitions(session_id)
    assert await owner.path(session_id) == [("pending", "active"), ("active", "paused"), ("paused", "expired")]
    assert [one.reason for one in (first, second, third)] == ["the task is due", "lunch", ""]
    assert [one.actor for one in (first, second, third)] == [owner.agent_id, owner.agent_id, admin]
    assert [one.version for one in (first, second, third)] == [2, 3, 4]
    assert (first.event, second.HasField("event")) == (1, False)
    assert from_timestamp(second.occurred_at) == sessions.clock.now()


async def test_what_is_no_transition_leaves_no_row_and_no_time(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin(SessionStatus.ACTIVE)
    before = await owner.read(session_id)
    sessions.clock.advance(seconds=5)
    await owner.update(session_id, idle_timeout_seconds=60)
    await owner.update(session_id, status=wire(SessionStatus.ACTIVE))
    await owner.send(session_id, "activate")
    await owner.heartbeat(session_id)
    after = await owner.read(session_id)
    assert len(await owner.transitions(session_id)) == 1
    assert after.last_transition_at == before.last_transition_at
    assert after.version == before.version + 1


@pytest.mark.parametrize(
    ("status", "field"),
    [("paused", "paused_at"), ("completed", "completed_at"), ("failed", "failed_at"), ("expired", "expired_at")],
)
async def test_a_session_says_since_when_it_is_what_it_is(
    sessions: Sessions, owner: Owner, status: str, field: str
) -> None:
    session = await owner.read(await owner.begin(SessionStatus(status)))
    fields = ["paused_at", "completed_at", "failed_at", "expired_at"]
    assert [name for name in fields if session.HasField(name)] == [field]
    assert from_timestamp(getattr(session, field)) == sessions.clock.now()


async def test_transitions_come_in_pages_newest_first(owner: Owner) -> None:
    session_id = await owner.begin(SessionStatus.ACTIVE)
    for _ in range(3):
        await owner.send(session_id, "pause")
        await owner.send(session_id, "resume")
    seen, cursor = [], ""
    while True:
        request = ListSessionTransitionsRequest(session_id=session_id, limit=3, cursor=cursor)
        page = await owner.caller.ListSessionTransitions(request)
        seen += [one.version for one in page.items]
        assert page.has_more == page.HasField("next_cursor")
        if not page.has_more:
            break
        cursor = page.next_cursor
    assert seen == [8, 7, 6, 5, 4, 3, 2]
    other = ListSessionTransitionsRequest(session_id=await owner.begin(), cursor=cursor)
    with pytest.raises(InvalidArgument) as refused:
        await owner.caller.ListSessionTransitions(other)
    assert refused.value.reason == "CURSOR_INVALID"


async def test_a_session_that_is_not_there_is_not_moved(owner: Owner) -> None:
    for attempt in (
        owner.update(new_id(), status=wire(SessionStatus.ACTIVE)),
        owner.send(new_id(), "activate"),
        owner.heartbeat(new_id()),
        owner.transitions(new_id()),
        owner.read(new_id()),
    ):
        with pytest.raises(NotFound) as refused:
            await attempt
        assert refused.value.reason == "SESSION_NOT_FOUND"


@pytest.mark.parametrize("number", [0, 6, 99])
async def test_an_unknown_event_is_refused(owner: Owner, number: int) -> None:
    session_id = await owner.begin()
    with pytest.raises(InvalidArgument, match="activate, pause, resume, complete, fail"):
        await owner.caller.SendSessionEvent(SendSessionEventRequest(session_id=session_id, event=number))  # type: ignore[arg-type]


async def test_what_becomes_of_a_session_is_told_as_events(sessions: Sessions, owner: Owner) -> None:
    task_id = new_id()
    session_id = await owner.begin(task_id=task_id)
    for event in ("activate", "pause", "resume", "complete"):
        await owner.send(session_id, event, reason=f"to {event}")
    await owner.begin(SessionStatus.FAILED)
    await owner.begin(SessionStatus.EXPIRED)
    events = await told(sessions, "event")
    assert [one["topic"] for one in events] == [
        *("session.created", "session.activated", "session.paused", "session.activated", "session.completed"),
        *("session.created", "session.activated", "session.failed"),
        *("session.created", "session.expired"),
    ]
    assert events[2]["payload"] == {
        "session_id": session_id,
        "agent_role": "planner",
        "agent_id": owner.agent_id,
        "task_id": task_id,
        "status": "paused",
        "previous_status": "active",
        "reason": "to pause",
        "actor": owner.agent_id,
    }


async def test_every_change_is_told_to_the_audit(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin(request_id="begin-1")
    await owner.send(session_id, "activate", reason="now", request_id="go-1")
    await owner.update(session_id, idle_timeout_seconds=60, status=wire(SessionStatus.PAUSED))
    created, sent, updated = await told(sessions, "audit")
    assert [one["action"] for one in (created, sent, updated)] == [
        *("session.create", "session.send_event", "session.update"),
    ]
    assert {one["resource"] for one in (created, sent, updated)} == {f"session/{session_id}"}
    assert {one["actor"] for one in (created, sent, updated)} == {owner.agent_id}
    assert (created["after"]["agent_role"], created["request_id"]) == ("planner", "begin-1")
    assert (sent["before"], sent["after"]) == ({"status": "pending"}, {"status": "active"})
    assert (sent["note"], sent["request_id"]) == ("now", "go-1")
    assert updated["before"] == {"status": "active", "idle_timeout_seconds": None}
    assert updated["after"] == {"status": "paused", "idle_timeout_seconds": 60}


async def test_a_refused_move_is_told_to_nobody(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin(SessionStatus.COMPLETED)
    count = await sessions.count(tables.outbox)
    with pytest.raises(FailedPrecondition):
        await owner.update(session_id, status=wire(SessionStatus.ACTIVE), idle_timeout_seconds=5)
    assert await sessions.count(tables.outbox) == count


async def test_of_twenty_who_end_a_session_each_is_told_the_truth(owner: Owner) -> None:
    session_id = await owner.begin(SessionStatus.ACTIVE)

    async def attempt(event: str) -> str:
        try:
            await owner.send(session_id, event)
        except ServiceError as error:
            return error.reason
        return event

    answers = await asyncio.gather(*(attempt(event) for event in ["complete", "fail"] * 10))
    assert answers.count("SESSION_TRANSITION_ILLEGAL") == 19
    (ended,) = set(answers) - {"SESSION_TRANSITION_ILLEGAL"}
    assert await owner.status(session_id) == {"complete": "completed", "fail": "failed"}[ended]
    assert len(await owner.transitions(session_id)) == 2


async def test_of_twenty_who_activate_a_session_one_does_and_all_are_content(owner: Owner) -> None:
    session_id = await owner.begin()
    answers = await asyncio.gather(*(owner.send(session_id, "activate") for _ in range(20)))
    assert {answer.version for answer in answers} == {2}
    assert await owner.path(session_id) == [("pending", "active")]
