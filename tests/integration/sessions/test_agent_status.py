"""What an agent is at, and what it has used."""

import asyncio

import pytest
from baton.sessions.v1.agent_pb2 import AgentStatus
from baton.sessions.v1.agent_service_pb2 import AddAgentUsageRequest, GetAgentRequest, SetAgentStatusRequest
from baton.sessions.v1.agent_service_pb2_grpc import AgentServiceStub

from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ServiceError
from services.chassis.ids import new_id
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions

IDLE, EXECUTING, WAITING, BLOCKED, COMPLETE = (
    AgentStatus.Value(f"AGENT_STATUS_{name}") for name in ("IDLE", "EXECUTING", "WAITING", "BLOCKED", "COMPLETE")
)


async def become(caller: AgentServiceStub, agent_id: str, *statuses: int) -> int:
    """Goes through statuses, one after the other; answers the last one."""
    for status in statuses:
        answer = await caller.SetAgentStatus(SetAgentStatusRequest(agent_id=agent_id, status=status))
    return answer.agent.status


async def test_an_agent_says_itself_what_it_is_at(sessions: Sessions) -> None:
    agent = await sessions.agent()
    own = sessions.caller(["tasks:read"], agent_id=agent.id)
    walk = [EXECUTING, WAITING, EXECUTING, BLOCKED, IDLE, EXECUTING, COMPLETE, IDLE, COMPLETE, EXECUTING]
    assert await become(own, agent.id, *walk) == EXECUTING
    assert [entry["action"] for entry in await sessions.audited()] == ["agent.create"] + ["agent.set_status"] * 10


async def test_the_same_again_is_no_change(sessions: Sessions) -> None:
    agent = await sessions.agent()
    own = sessions.caller([], agent_id=agent.id)
    assert await become(own, agent.id, IDLE, IDLE) == IDLE
    found = (await sessions.caller(["agents:read"]).GetAgent(GetAgentRequest(agent_id=agent.id))).agent
    assert found == agent


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        ([], BLOCKED, "executing, complete"),
        ([], WAITING, "executing, complete"),
        ([EXECUTING, WAITING], COMPLETE, "idle, executing, blocked"),
        ([EXECUTING, BLOCKED], WAITING, "idle, executing"),
        ([EXECUTING, BLOCKED], COMPLETE, "idle, executing"),
        ([COMPLETE], BLOCKED, "idle, executing"),
        ([COMPLETE], WAITING, "idle, executing"),
    ],
)
async def test_what_cannot_follow_is_refused_with_what_can(
    sessions: Sessions, before: list[int], after: int, allowed: str
) -> None:
    agent = await sessions.agent()
    admin = sessions.caller(["agents:admin"])
    if before:
        await become(admin, agent.id, *before)
    with pytest.raises(FailedPrecondition) as refused:
        await become(admin, agent.id, after)
    old, new = (AgentStatus.Name(one).removeprefix("AGENT_STATUS_").lower() for one in ([IDLE, *before][-1], after))
    assert refused.value.reason == "AGENT_STATUS_ILLEGAL"
    assert refused.value.metadata == {"agent_id": agent.id, "from": old, "to": new, "allowed": allowed}
    assert f"is {old} and cannot become {new}: what can follow is {allowed}" in refused.value.message


@pytest.mark.parametrize("status", [0, 6, 99])
async def test_an_unknown_status_is_refused(sessions: Sessions, status: int) -> None:
    agent = await sessions.agent()
    with pytest.raises(InvalidArgument, match="idle, executing, waiting, blocked, complete") as refused:
        await become(sessions.caller(["admin"]), agent.id, status)
    assert [violation.field for violation in refused.value.violations] == ["status"]


async def test_the_reason_is_told_to_the_audit(sessions: Sessions) -> None:
    agent = await sessions.agent()
    request = SetAgentStatusRequest(agent_id=agent.id, status=EXECUTING, reason="a new task", request_id="key-1")
    await sessions.caller([], agent_id=agent.id).SetAgentStatus(request)
    entry = (await sessions.audited())[-1]
    assert (entry["before"], entry["after"]) == ({"status": "idle"}, {"status": "executing"})
    assert (entry["note"], entry["actor"], entry["request_id"]) == ("a new task", agent.id, "key-1")


async def test_nobody_speaks_for_another_agent(sessions: Sessions) -> None:
    agent = await sessions.agent()
    other = sessions.caller(["agents:read", "tasks:write"], agent_id=new_id())
    for attempt in (
        other.SetAgentStatus(SetAgentStatusRequest(agent_id=agent.id, status=EXECUTING)),
        other.AddAgentUsage(AddAgentUsageRequest(agent_id=agent.id, input_tokens=1)),
    ):
        with pytest.raises(PermissionDenied, match="agents:admin") as refused:
            await attempt
        assert refused.value.reason == "SCOPE_MISSING"


async def test_an_agent_that_is_not_there_is_at_nothing(sessions: Sessions) -> None:
    admin = sessions.caller(["agents:admin"])
    for attempt in (
        admin.SetAgentStatus(SetAgentStatusRequest(agent_id=new_id(), status=EXECUTING)),
        admin.AddAgentUsage(AddAgentUsageRequest(agent_id=new_id(), input_tokens=1)),
    ):
        with pytest.raises(NotFound) as refused:
            await attempt
        assert refused.value.reason == "AGENT_NOT_FOUND"


async def test_of_twenty_who_move_an_agent_each_is_told_the_truth(sessions: Sessions) -> None:
    agent = await sessions.agent()
    admin = sessions.caller(["agents:admin"])
    await become(admin, agent.id, EXECUTING)

    async def attempt(status: int) -> str:
        try:
            return AgentStatus.Name(await become(admin, agent.id, status))
        except ServiceError as error:
            return error.reason

    # Who is blocked is never complete at once, nor the other way round: whoever is first excludes the others.
    answers = await asyncio.gather(*(attempt(status) for status in [BLOCKED, COMPLETE] * 10))
    assert answers.count("AGENT_STATUS_ILLEGAL") == 10
    found = (await sessions.caller(["agents:read"]).GetAgent(GetAgentRequest(agent_id=agent.id))).agent
    # One of them has moved it: its version was 2 once it was executing.
    assert (found.version, AgentStatus.Name(found.status) in answers) == (3, True)


async def test_usage_that_fifty_add_at_once_is_all_there(sessions: Sessions) -> None:
    agent = await sessions.agent()
    own = sessions.caller([], agent_id=agent.id)
    used = AddAgentUsageRequest(agent_id=agent.id, input_tokens=3, output_tokens=2, cost_microusd=1_000_000_007)
    await asyncio.gather(*(own.AddAgentUsage(used) for _ in range(50)))
    found = (await sessions.caller(["agents:read"]).GetAgent(GetAgentRequest(agent_id=agent.id))).agent
    assert (found.input_tokens, found.output_tokens, found.cost_microusd) == (150, 100, 50_000_000_350)
    # Whoever edits the agent is not disturbed.
    assert found.version == 1


async def test_usage_is_added_once_for_each_key(sessions: Sessions) -> None:
    agent = await sessions.agent()
    own = sessions.caller([], agent_id=agent.id)
    used = AddAgentUsageRequest(agent_id=agent.id, input_tokens=3, request_id="call-1")
    assert await own.AddAgentUsage(used) == await own.AddAgentUsage(used)
    assert (await own.AddAgentUsage(AddAgentUsageRequest(agent_id=agent.id))).agent.input_tokens == 3


@pytest.mark.parametrize(
    ("field", "most"),
    [("input_tokens", 10**9), ("output_tokens", 10**9), ("cost_microusd", 10**12)],
)
async def test_usage_has_limits(sessions: Sessions, field: str, most: int) -> None:
    agent = await sessions.agent()
    own = sessions.caller([], agent_id=agent.id)
    for amount in (-1, most + 1):
        with pytest.raises(InvalidArgument) as refused:
            await own.AddAgentUsage(AddAgentUsageRequest(agent_id=agent.id, **{field: amount}))
        assert [violation.field for violation in refused.value.violations] == [field]
    answer = await own.AddAgentUsage(AddAgentUsageRequest(agent_id=agent.id, **{field: most}))
    assert getattr(answer.agent, field) == most


async def test_usage_leaves_no_audit(sessions: Sessions) -> None:
    agent = await sessions.agent()
    await sessions.caller([], agent_id=agent.id).AddAgentUsage(AddAgentUsageRequest(agent_id=agent.id, input_tokens=1))
    assert await sessions.count(tables.outbox) == 1
