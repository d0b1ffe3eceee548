"""Who may use which tool server, at the moment of the call."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from baton.sessions.v1 import agent_service_pb2_grpc
from baton.tasks.v1 import run_pb2

from services.chassis.ids import new_id
from services.worker.failures import InputNotValid, InternalFault
from services.worker.tools.permissions import Permissions
from tests.support.fake_tasks import FakeTasks
from tests.support.grpc import channel_of
from tests.support.waiting import await_until
from tests.unit.worker.conftest import Working

ALICE = new_id()
READ, WRITE = "tool:calendar.read", "tool:calendar.write"
_Class = run_pb2.ErrorClass


@pytest.fixture
async def stub(tasks: FakeTasks) -> AsyncIterator[agent_service_pb2_grpc.AgentServiceStub]:
    async with channel_of(tasks.address) as channel:
        yield agent_service_pb2_grpc.AgentServiceStub(channel)


Stub = agent_service_pb2_grpc.AgentServiceStub


async def test_all_scopes_of_the_server_must_be_held(tasks: FakeTasks, stub: Stub) -> None:
    permissions = Permissions(stub, keep_seconds=0)
    tasks.agents[ALICE] = ["tasks:write", READ]
    await permissions.require(ALICE, [READ], "calendar")
    with pytest.raises(InputNotValid) as refused:
        await permissions.require(ALICE, [READ, WRITE, "tool:a"], "calendar")
    message = f"tool server calendar needs tool:a, {WRITE}, which the task's owner, agent {ALICE}, lacks"
    assert str(refused.value) == message
    tasks.agents[ALICE] = ["admin"]
    await permissions.require(ALICE, [READ, WRITE], "calendar")
    del tasks.agents[ALICE]
    with pytest.raises(InputNotValid, match=f"there is no agent {ALICE}"):
        await permissions.require(ALICE, [READ], "calendar")


async def test_an_archived_owner_may_use_nothing_that_asks_for_scopes(tasks: FakeTasks, stub: Stub) -> None:
    permissions = Permissions(stub, keep_seconds=0)
    tasks.agents[ALICE] = ["admin", READ]
    await permissions.require(ALICE, [READ], "calendar")
    tasks.archived.add(ALICE)
    with pytest.raises(InputNotValid, match=f"agent {ALICE}.* or it is archived"):
        await permissions.require(ALICE, [READ], "calendar")


async def test_an_answer_is_believed_for_a_while_and_shared(tasks: FakeTasks, stub: Stub) -> None:
    permissions = Permissions(stub, keep_seconds=0.3)
    tasks.agents[ALICE] = [READ]
    await asyncio.gather(*(permissions.require(ALICE, [READ], "calendar") for _ in range(20)))
    assert tasks.agents_read == 1
    tasks.agents[ALICE] = []

    async def refused() -> bool:
        try:
            await permissions.require(ALICE, [READ], "calendar")
        except InputNotValid:
            return True
        return False

    assert not await refused()
    await await_until(refused)
    assert tasks.agents_read == 2


async def test_when_nobody_can_tell_nobody_may_and_it_is_no_answer_to_keep(tasks: FakeTasks, stub: Stub) -> None:
    permissions = Permissions(stub)
    tasks.agents[ALICE] = [READ]
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED):
        tasks.fail("GetAgent", 1, code)
        with pytest.raises(InternalFault, match=f"what agent {ALICE} may use cannot be looked up right now"):
            await permissions.require(ALICE, [READ], "calendar")
    await permissions.require(ALICE, [READ], "calendar")


async def test_the_owner_of_a_run_must_hold_what_the_server_asks_for(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    tasks.tool_servers["mis"].scopes.append(READ)
    tasks.agents[ALICE] = []
    step = {"uses": "mis.say", "with": {"text": "done"}, "save_as": "said"}
    async with working():
        refused = await tasks.ended(await tasks.enqueue(step, created_by=ALICE))
        stranger = await tasks.ended(await tasks.enqueue(step))
    assert refused.error.message == f"tool server mis needs {READ}, which the task's owner, agent {ALICE}, lacks"
    assert "there is no agent" in stranger.error.message
    for run in (refused, stranger):
        assert (getattr(run.error, "class"), run.error.retryable) == (_Class.ERROR_CLASS_VALIDATION, False)
    tasks.agents[ALICE] = [READ]
    async with working():
        run = await tasks.ended(await tasks.enqueue(step, created_by=ALICE))
    assert run.output == {"said": "done"}


async def test_nobody_is_asked_about_servers_that_ask_for_nothing(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    async with working():
        run = await tasks.ended(await tasks.enqueue({"uses": "mis.say", "with": {"text": "done"}, "save_as": "said"}))
    assert (run.output, tasks.agents_read) == ({"said": "done"}, 0)


async def test_what_counts_is_what_holds_when_it_is_the_calls_turn(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    tasks.tool_servers["mis"].scopes.append(READ)
    tasks.agents[ALICE] = [READ]
    async with working(tool_calls=1):
        slow = await tasks.enqueue({"uses": "mis.slow", "with": {"seconds": 3}}, created_by=ALICE)
        await await_until(lambda: tasks.agents_read)
        waiting = await tasks.enqueue({"uses": "mis.say", "with": {"text": "x"}}, created_by=ALICE)
        await await_until(lambda: waiting.held)
        tasks.tool_servers["mis"].enabled = False
        await tasks.ended(slow)
        await tasks.ended(waiting)
    assert slow.ending == "succeeded"
    assert waiting.error.message == "tool server mis is disabled"
