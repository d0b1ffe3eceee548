"""What agents have used: every call is kept, and nothing of it is lost in the sums."""

import asyncio
from datetime import timedelta
from typing import Any

import orjson
import pytest
from baton.api.v1.inbox_service_pb2 import DeliverMessagesRequest, OutboxMessage
from baton.api.v1.inbox_service_pb2_grpc import InboxServiceStub
from baton.sessions.v1 import usage_pb2
from baton.sessions.v1.agent_service_pb2 import AddAgentUsageRequest, ArchiveAgentRequest, GetAgentRequest
from baton.sessions.v1.usage_service_pb2 import (
    ListUsageRequest,
    NewUsage,
    RecordUsageRequest,
    SummarizeUsageRequest,
)

from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from services.chassis.ids import id_at, new_id
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.sessions.store import tables
from tests.integration.sessions.lifecycles import owner_of
from tests.integration.sessions.running import Sessions

CALL: dict[str, Any] = {
    "model": "opus", "input_tokens": 100, "output_tokens": 20, "cached_tokens": 60, "cost_microusd": 1500,
    "tool_calls": 2, "wall_time_ms": 900,
}  # fmt: skip
AMOUNTS = [name for name in CALL if name != "model"]


async def record(sessions: Sessions, agent_id: str, *calls: dict[str, Any], **fields: Any) -> list[str]:
    """An agent tells of its own calls; answers their ids."""
    request = RecordUsageRequest(calls=[NewUsage(**call) for call in calls or [CALL]], **fields)
    return list((await sessions.usage(["tasks:read"], agent_id).RecordUsage(request)).ids)


async def sums(sessions: Sessions, group: str, **fields: Any) -> dict[str, usage_pb2.UsageSum]:
    number = usage_pb2.UsageGroup.Value(f"USAGE_GROUP_{group.upper()}")
    answer = await sessions.usage().SummarizeUsage(SummarizeUsageRequest(group_by=number, **fields))
    return {one.key: one for one in answer.items}


async def listed(sessions: Sessions, **fields: Any) -> list[usage_pb2.Usage]:
    return list((await sessions.usage().ListUsage(ListUsageRequest(**fields))).items)


async def test_a_call_is_kept_as_it_was_told(sessions: Sessions) -> None:
    owner, run_id = await owner_of(sessions), new_id()
    session_id, at = await owner.begin(), sessions.clock.now() - timedelta(hours=3)
    more = {"session_id": session_id, "run_id": run_id, "occurred_at": to_timestamp(at)}
    (call_id,) = await record(sessions, owner.agent_id, CALL | more)
    (call,) = await listed(sessions)
    assert {name: getattr(call, name) for name in CALL} == CALL
    assert (call.id, call.agent_id, call.recorded_by) == (call_id, owner.agent_id, owner.agent_id)
    assert (call.session_id, call.run_id, from_timestamp(call.occurred_at)) == (session_id, run_id, at)
    await record(sessions, owner.agent_id, {"input_tokens": 1})
    bare = (await listed(sessions))[0]
    assert from_timestamp(bare.occurred_at) == sessions.clock.now()
    assert not bare.HasField("session_id")
    assert not bare.HasField("run_id")


async def test_calls_are_found_by_what_they_say(sessions: Sessions) -> None:
    one, other = await owner_of(sessions), await owner_of(sessions)
    session_id, run_id = await one.begin(), new_id()
    ids = await record(sessions, one.agent_id, CALL, {"model": "haiku"}, {"session_id": session_id}, {"run_id": run_id})
    theirs = await record(sessions, other.agent_id)
    assert [call.id for call in await listed(sessions)] == [*theirs, *reversed(ids)]
    for fields, expected in (
        ({"agent_id": one.agent_id}, list(reversed(ids))),
        ({"model": "haiku"}, ids[1:2]),
        ({"session_id": session_id}, ids[2:3]),
        ({"run_id": run_id}, ids[3:]),
        ({"agent_id": other.agent_id, "model": "haiku"}, []),
    ):
        assert [call.id for call in await listed(sessions, **fields)] == expected
    first = await sessions.usage().ListUsage(ListUsageRequest(limit=2))
    rest = await sessions.usage().ListUsage(ListUsageRequest(limit=200, cursor=first.next_cursor))
    assert (first.has_more, len(first.items), len(rest.items), rest.has_more) == (True, 2, 3, False)


async def test_usage_is_added_up_by_agent_session_day_and_model(sessions: Sessions) -> None:
    one, other = await owner_of(sessions), await owner_of(sessions)
    session_id, today = await one.begin(), f"{sessions.clock.now():%Y-%m-%d}"
    await record(sessions, one.agent_id, CALL, CALL | {"session_id": session_id})
    await record(sessions, other.agent_id, CALL | {"model": "haiku"})
    sessions.clock.advance(days=1)
    tomorrow = f"{sessions.clock.now():%Y-%m-%d}"
    await record(sessions, one.agent_id)
    counts = {group: {key: one.calls for key, one in (await sums(sessions, group)).items()} for group in
              ("agent", "session", "day", "model")}  # fmt: skip
    assert counts == {
        "agent": {one.agent_id: 3, other.agent_id: 1},
        "session": {session_id: 1},
        "day": {today: 3, tomorrow: 1},
        "model": {"opus": 3, "haiku": 1},
    }
    mine = (await sums(sessions, "agent", agent_id=one.agent_id))[one.agent_id]
    assert {name: getattr(mine, name) for name in AMOUNTS} == {name: CALL[name] * 3 for name in AMOUNTS}
    assert (await sums(sessions, "day", since_day=tomorrow)).keys() == {tomorrow}
    assert (await sums(sessions, "day", until_day=tomorrow)).keys() == {today}
    assert (await sums(sessions, "model", session_id=session_id)).keys() == {"opus"}
    agent = (await sessions.caller(["admin"]).GetAgent(GetAgentRequest(agent_id=one.agent_id))).agent
    assert (agent.input_tokens, agent.output_tokens, agent.cost_microusd) == (300, 60, 4500)
    page = await sessions.usage().SummarizeUsage(SummarizeUsageRequest(group_by=3, limit=1))
    rest = await sessions.usage().SummarizeUsage(SummarizeUsageRequest(group_by=3, limit=1, cursor=page.next_cursor))
    assert ([page.items[0].key, rest.items[0].key], rest.has_more) == ([today, tomorrow], False)


async def test_what_an_agent_adds_in_the_old_way_is_a_call_too(sessions: Sessions) -> None:
    agent = await sessions.agent()
    caller = sessions.caller(["tasks:read"], agent.id)
    for _ in range(2):
        request = AddAgentUsageRequest(
            agent_id=agent.id, input_tokens=5, output_tokens=2, cost_microusd=9, request_id="k"
        )
        after = (await caller.AddAgentUsage(request)).agent
    assert (after.input_tokens, after.output_tokens, after.cost_microusd) == (5, 2, 9)
    (call,) = await listed(sessions)
    assert (call.input_tokens, call.output_tokens, call.cost_microusd, call.model) == (5, 2, 9, "")


async def test_nothing_is_lost_when_fifty_write_at_once(sessions: Sessions) -> None:
    owner = await owner_of(sessions)
    session_id, others = await owner.begin(), [await owner_of(sessions) for _ in range(2)]
    agents = [owner, *others]
    # Of several agents in both orders: nobody waits in a circle.
    admin = sessions.usage()
    batches = [
        [NewUsage(**CALL, agent_id=one.agent_id, session_id=session_id) for one in (agents if n % 2 else agents[::-1])]
        for n in range(50)
    ]
    await asyncio.gather(*(admin.RecordUsage(RecordUsageRequest(calls=batch)) for batch in batches))
    by_agent = await sums(sessions, "agent")
    assert {one.calls for one in by_agent.values()} == {50}
    assert (await sums(sessions, "session"))[session_id].cost_microusd == 150 * CALL["cost_microusd"]
    assert await sessions.count(tables.usage_calls) == 150
    for one in agents:
        agent = (await sessions.caller(["admin"]).GetAgent(GetAgentRequest(agent_id=one.agent_id))).agent
        assert agent.input_tokens == 50 * CALL["input_tokens"]


async def test_a_repeated_request_counts_once(sessions: Sessions) -> None:
    agent = await sessions.agent()
    first = await record(sessions, agent.id, request_id="once")
    assert await record(sessions, agent.id, request_id="once") == first
    assert await sessions.count(tables.usage_calls) == 1


async def test_an_agent_tells_of_its_own_calls_only(sessions: Sessions) -> None:
    agent, other = await sessions.agent(), await sessions.agent()
    with pytest.raises(PermissionDenied):
        await record(sessions, agent.id, CALL, CALL | {"agent_id": other.id})
    await sessions.usage(["agents:admin"]).RecordUsage(RecordUsageRequest(calls=[NewUsage(agent_id=other.id)]))
    await sessions.caller(["admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=other.id))
    for agent_id, error in ((other.id, FailedPrecondition), (new_id(), NotFound)):
        with pytest.raises(error):
            await sessions.usage().RecordUsage(
                RecordUsageRequest(calls=[NewUsage(agent_id=agent.id), NewUsage(agent_id=agent_id)])
            )
    assert await sessions.count(tables.usage_calls) == 1


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ({"input_tokens": -1}, "calls[1].input_tokens"),
        ({"cost_microusd": 10**12 + 1}, "calls[1].cost_microusd"),
        ({"model": "x" * 101}, "calls[1].model"),
        ({"session_id": "s"}, "calls[1].session_id"),
        ({"session_id": new_id()}, "calls[1].session_id"),
        ({"input_tokens": 5, "cached_tokens": 6}, "calls[1].cached_tokens"),
    ],
)
async def test_bad_calls_are_named_and_nothing_is_stored(sessions: Sessions, call: dict[str, Any], field: str) -> None:
    agent = await sessions.agent()
    with pytest.raises(InvalidArgument) as refused:
        await record(sessions, agent.id, CALL, call)
    assert [fault.field for fault in refused.value.violations] == [field]
    assert [await sessions.count(table) for table in (tables.usage_calls, tables.usage_days)] == [0, 0]


@pytest.mark.parametrize("day", ["2026-02-30", "yesterday"])
async def test_a_day_that_there_is_not_is_named(sessions: Sessions, day: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await sums(sessions, "day", since_day=day)
    assert [fault.field for fault in refused.value.violations] == ["since_day"]


async def test_what_runs_tell_is_recorded_once(sessions: Sessions) -> None:
    owner, task_id, run_id = await owner_of(sessions), new_id(), new_id()
    ended = await owner.begin(task_id=task_id)
    sessions.clock.advance(seconds=1)
    session_id = await owner.begin(task_id=task_id)
    now = sessions.clock.now()

    def message(agent_id: str, **fields: Any) -> OutboxMessage:
        told = {
            "agent_id": agent_id,
            "task_id": task_id,
            "run_id": run_id,
            "tool_calls": 3,
            "wall_time_ms": 40,
        } | fields
        return OutboxMessage(id=id_at(now), topic="usage", payload=orjson.dumps(told), created_at=to_timestamp(now))

    told = [message(owner.agent_id), message(new_id()), message(owner.agent_id, task_id="")]
    inbox = InboxServiceStub(sessions.channel(sessions.signer.token(["messages:deliver"])))
    for _ in range(2):
        await inbox.DeliverMessages(DeliverMessagesRequest(source="tasks", messages=told))
    without, within = sorted(await listed(sessions), key=lambda call: call.session_id)
    assert (within.session_id, without.session_id) == (session_id, "")
    assert (within.tool_calls, within.wall_time_ms, within.run_id, ended != session_id) == (3, 40, run_id, True)
    bad = message(owner.agent_id, tool_calls="many")
    with pytest.raises(InvalidArgument):
        await inbox.DeliverMessages(DeliverMessagesRequest(source="tasks", messages=[bad]))
