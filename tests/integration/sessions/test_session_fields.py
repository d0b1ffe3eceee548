"""What is kept of a session, who may change it, and what becomes of two changes at once."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from baton.sessions.v1.agent_service_pb2 import ArchiveAgentRequest
from baton.sessions.v1.session_pb2 import SessionStatus as Wire
from baton.sessions.v1.session_service_pb2 import CreateSessionRequest, UpdateSessionRequest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from services.chassis.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    ServiceError,
)
from services.chassis.ids import new_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import from_timestamp
from services.sessions.models.session import SessionStatus
from services.sessions.store import tables
from tests.integration.sessions.lifecycles import Owner, owner_of, told, wire
from tests.integration.sessions.running import Sessions

FREE = {"a": 1, "b": None, "c": {"d": [True, None, "é"]}, "e": 1.5}


@pytest.fixture
async def owner(sessions: Sessions) -> Owner:
    return await owner_of(sessions)


def fields_of(error: InvalidArgument) -> list[str]:
    return [violation.field for violation in error.violations]


async def test_a_new_session_is_pending_the_caller_s_and_has_what_it_was_given(
    sessions: Sessions, owner: Owner
) -> None:
    task_id = new_id()
    request = CreateSessionRequest(
        agent_role="planner",
        task_id=task_id.upper(),
        metadata=to_struct(FREE),
        idle_timeout_seconds=60,
        max_lifetime_seconds=3600,
    )
    answer = await owner.caller.CreateSession(request)
    assert (answer.status, answer.version) == (Wire.SESSION_STATUS_PENDING, 1)
    session = await owner.read(answer.session_id)
    assert (session.session_id, session.agent_role, session.state) == (answer.session_id, "planner", answer.status)
    assert (session.task_id, session.agent_id) == (task_id, owner.agent_id)
    assert from_struct(session.metadata) == FREE
    assert (session.idle_timeout_seconds, session.max_lifetime_seconds, session.version) == (60, 3600, 1)
    now = sessions.clock.now()
    times = (session.created_at, session.updated_at, session.last_activity_at)
    assert [from_timestamp(time) for time in times] == [now] * 3
    assert from_timestamp(session.expires_at) == now + timedelta(seconds=60)
    assert not session.HasField("last_transition_at")


async def test_what_a_session_was_not_given_it_lacks(sessions: Sessions, owner: Owner) -> None:
    session = await owner.read(await owner.begin())
    unset = ("task_id", "idle_timeout_seconds", "max_lifetime_seconds", "last_transition_at", "paused_at")
    assert not any(session.HasField(name) for name in unset)
    assert from_struct(session.metadata) == {}
    assert from_timestamp(session.expires_at) == sessions.clock.now() + timedelta(days=7)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"agent_role": ""}, "agent_role"),
        ({"agent_role": "x" * 51}, "agent_role"),
        ({"agent_role": "a\x00b"}, "agent_role"),
        ({"task_id": "42"}, "task_id"),
        ({"agent_id": "me"}, "agent_id"),
        ({"idle_timeout_seconds": 0}, "idle_timeout_seconds"),
        ({"idle_timeout_seconds": 2_592_001}, "idle_timeout_seconds"),
        ({"max_lifetime_seconds": -1}, "max_lifetime_seconds"),
        ({"max_lifetime_seconds": 31_536_001}, "max_lifetime_seconds"),
        ({"metadata": to_struct({"text": "x" * 16 * 1024})}, "metadata"),
        ({"request_id": "x" * 256}, "request_id"),
    ],
)
async def test_bad_input_is_refused_by_name_and_nothing_is_stored(
    sessions: Sessions, owner: Owner, fields: dict[str, Any], field: str
) -> None:
    count = await sessions.count(tables.outbox)
    with pytest.raises(InvalidArgument) as refused:
        await owner.begin(**fields)
    assert fields_of(refused.value)[0].partition(".")[0] == field
    assert await sessions.count(tables.sessions) == 0
    assert await sessions.count(tables.outbox) == count


@pytest.mark.parametrize("role", ["x" * 50, "é" * 50, "Jürgen's \U0001f980 helper"])
async def test_a_role_is_any_text_of_fifty_characters(owner: Owner, role: str) -> None:
    assert (await owner.read(await owner.begin(agent_role=role))).agent_role == role


async def test_metadata_has_limits_that_are_told(owner: Owner) -> None:
    session_id = await owner.begin(metadata=to_struct({"text": "x" * (16 * 1024 - len('{"text":""}'))}))
    deep: Any = 0
    for _ in range(20):
        deep = {"x": deep}
    await owner.update(session_id, metadata=to_struct(deep))
    for metadata, why in ({"text": "x" * 16 * 1024}, "16395 bytes"), ({"x": deep}, "deeper than 20 levels"):
        with pytest.raises(InvalidArgument, match=why) as refused:
            await owner.update(session_id, metadata=to_struct(metadata))
        assert fields_of(refused.value) == ["metadata"]
    assert from_struct((await owner.read(session_id)).metadata) == deep


async def test_only_what_is_given_is_changed(sessions: Sessions, owner: Owner) -> None:
    values: dict[str, Any] = {
        "task_id": new_id(),
        "metadata": to_struct(FREE),
        "idle_timeout_seconds": 5,
        "max_lifetime_seconds": 6,
    }
    before = await owner.read(await owner.begin())
    for field, value in values.items():
        sessions.clock.advance(seconds=1)
        after = await owner.update(before.session_id, **{field: value})
        assert getattr(after, field) == value
        assert from_timestamp(after.updated_at) == sessions.clock.now()
        assert after.version == before.version + 1
        for name in {"agent_role", "state", "agent_id", *values} - {field}:
            assert getattr(after, name) == getattr(before, name)
        before = after


async def test_metadata_is_replaced_as_a_whole(owner: Owner) -> None:
    session_id = await owner.begin(metadata=to_struct({"a": 1, "b": 2}))
    assert from_struct((await owner.update(session_id, metadata=to_struct({"b": 3}))).metadata) == {"b": 3}


async def test_what_the_mask_names_without_a_value_is_cleared_but_the_status_stays(owner: Owner) -> None:
    session_id = await owner.begin(
        SessionStatus.ACTIVE,
        task_id=new_id(),
        metadata=to_struct(FREE),
        idle_timeout_seconds=5,
        max_lifetime_seconds=6,
    )
    names = ["task_id", "metadata", "idle_timeout_seconds", "max_lifetime_seconds", "status", "version", "reason"]
    after = await owner.update(session_id, update_mask=FieldMask(paths=names), version=2)
    assert not any(after.HasField(name) for name in ("task_id", "idle_timeout_seconds", "max_lifetime_seconds"))
    assert from_struct(after.metadata) == {}
    assert (after.state, after.version) == (Wire.SESSION_STATUS_ACTIVE, 3)


@pytest.mark.parametrize("name", ["agent_role", "session_id", "created_at", "nonsense"])
async def test_what_cannot_be_changed_is_refused_by_name(owner: Owner, name: str) -> None:
    session_id = await owner.begin()
    with pytest.raises(InvalidArgument, match=name) as refused:
        await owner.update(session_id, update_mask=FieldMask(paths=[name]))
    assert fields_of(refused.value) == ["update_mask"]


async def test_nothing_new_is_no_change_but_true_is_not_one(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin(metadata=to_struct({"a": True}))
    assert (await owner.update(session_id, metadata=to_struct({"a": True}))).version == 1
    changed = await owner.update(session_id, metadata=to_struct({"a": 1}))
    assert (changed.version, from_struct(changed.metadata)["a"] is not True) == (2, True)
    entries = [one for one in await told(sessions, "audit") if one["after"]]
    assert entries[-1]["before"].keys() == {"metadata"}
    assert "true" not in str(entries[-1])


async def test_what_has_ended_keeps_its_status_and_may_be_annotated(owner: Owner) -> None:
    for status in (SessionStatus.COMPLETED, SessionStatus.FAILED, SessionStatus.EXPIRED):
        session_id = await owner.begin(status)
        after = await owner.update(session_id, metadata=to_struct({"summary": "done"}), task_id=new_id())
        assert (after.state, from_struct(after.metadata)) == (wire(status), {"summary": "done"})
        with pytest.raises(FailedPrecondition) as refused:
            await owner.update(session_id, idle_timeout_seconds=60)
        assert refused.value.reason == "SESSION_ENDED"


async def test_an_update_of_a_version_that_is_gone_is_refused(owner: Owner) -> None:
    session_id = await owner.begin()
    assert (await owner.update(session_id, task_id=new_id(), version=1)).version == 2
    before = await owner.read(session_id)
    for attempt in (
        owner.update(session_id, task_id=new_id(), version=1),
        owner.update(session_id, version=3),
        owner.send(session_id, "activate", version=1),
    ):
        with pytest.raises(Aborted) as refused:
            await attempt
        assert refused.value.reason == "SESSION_VERSION_MISMATCH"
        assert refused.value.metadata == {"session_id": session_id, "version": "2"}
    assert await owner.read(session_id) == before
    assert (await owner.send(session_id, "activate", version=2)).version == 3


async def test_of_two_updates_of_one_version_one_wins(owner: Owner) -> None:
    for _ in range(10):
        session_id = await owner.begin()
        wanted = [to_struct({"writer": number}) for number in (1, 2)]

        async def attempt(metadata: Struct, session_id: str = session_id) -> str:
            try:
                await owner.update(session_id, metadata=metadata, version=1)
            except Aborted as error:
                return error.reason
            return str(from_struct(metadata)["writer"])

        answers = await asyncio.gather(*map(attempt, wanted))
        winner, loser = sorted(answers)
        assert loser == "SESSION_VERSION_MISMATCH"
        session = await owner.read(session_id)
        assert (session.version, str(from_struct(session.metadata)["writer"])) == (2, winner)


async def test_twenty_changes_of_different_fields_lose_none(owner: Owner) -> None:
    session_id = await owner.begin()
    task_id = new_id()
    changes: list[dict[str, Any]] = [{"task_id": task_id}, {"idle_timeout_seconds": 60}, {"max_lifetime_seconds": 90}]
    await asyncio.gather(*(owner.update(session_id, **changes[number % 3]) for number in range(20)))
    session = await owner.read(session_id)
    assert (session.task_id, session.idle_timeout_seconds, session.max_lifetime_seconds) == (task_id, 60, 90)
    assert session.version == 4


async def test_a_session_is_its_agent_s_and_the_administrator_s(sessions: Sessions, owner: Owner) -> None:
    session_id = await owner.begin(SessionStatus.ACTIVE)
    before = await owner.read(session_id)
    stranger = await owner_of(sessions)
    assert await stranger.read(session_id) == before
    for attempt in (
        stranger.update(session_id, task_id=new_id()),
        stranger.send(session_id, "complete"),
        stranger.heartbeat(session_id),
    ):
        with pytest.raises(PermissionDenied) as refused:
            await attempt
        assert refused.value.reason == "SESSION_OF_ANOTHER_AGENT"
        assert refused.value.metadata == {"session_id": session_id, "agent_id": owner.agent_id}
    assert await owner.read(session_id) == before
    administrator = await owner_of(sessions, "admin")
    await administrator.heartbeat(session_id)
    assert (await administrator.send(session_id, "complete")).state == wire(SessionStatus.COMPLETED)


async def test_only_administrators_begin_sessions_of_others(sessions: Sessions, owner: Owner) -> None:
    other = await owner_of(sessions)
    with pytest.raises(PermissionDenied) as refused:
        await owner.begin(agent_id=other.agent_id)
    assert (refused.value.reason, refused.value.metadata) == ("SCOPE_MISSING", {"scope": "admin"})
    administrator = await owner_of(sessions, "admin")
    session_id = await administrator.begin(agent_id=other.agent_id.upper())
    assert (await other.send(session_id, "activate")).agent_id == other.agent_id
    assert (await owner.read(await owner.begin(agent_id=owner.agent_id))).agent_id == owner.agent_id


async def test_nobody_who_is_not_there_has_sessions(sessions: Sessions) -> None:
    administrator = await owner_of(sessions, "admin")
    archived = await sessions.agent()
    await sessions.caller(["admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=archived.id))
    for agent_id in (new_id(), archived.id):
        with pytest.raises(InvalidArgument) as refused:
            await administrator.begin(agent_id=agent_id)
        assert fields_of(refused.value) == ["agent_id"]
    assert await sessions.count(tables.sessions) == 0


async def test_a_repeated_request_has_one_effect(sessions: Sessions, owner: Owner) -> None:
    request = CreateSessionRequest(agent_role="planner", request_id="key-1")
    assert await owner.caller.CreateSession(request) == await owner.caller.CreateSession(request)
    assert await sessions.count(tables.sessions) == 1
    session_id = await owner.begin()
    change = UpdateSessionRequest(session_id=session_id, status=wire(SessionStatus.ACTIVE), request_id="key-2")
    first = await owner.caller.UpdateSession(change)
    await owner.send(session_id, "complete")
    assert await owner.caller.UpdateSession(change) == first
    assert await owner.status(session_id) == SessionStatus.COMPLETED


@pytest.mark.parametrize("number", [0, 7, 99])
async def test_an_unknown_status_is_refused(owner: Owner, number: Any) -> None:
    session_id = await owner.begin()
    with pytest.raises(InvalidArgument, match="pending, active, paused, completed, failed, expired") as refused:
        await owner.update(session_id, status=number)
    assert fields_of(refused.value) == ["status"]


async def test_a_failed_call_changes_nothing_of_what_it_could_have(owner: Owner) -> None:
    session_id = await owner.begin()
    before = await owner.read(session_id)
    with pytest.raises(ServiceError):
        await owner.update(session_id, task_id=new_id(), status=wire(SessionStatus.COMPLETED))
    assert await owner.read(session_id) == before
