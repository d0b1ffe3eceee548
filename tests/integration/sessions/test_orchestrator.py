"""The one agent that orchestrates the others."""

import asyncio
from typing import Any

import pytest
from baton.sessions.v1.agent_service_pb2 import ArchiveAgentRequest, CreateAgentRequest, UpdateAgentRequest
from baton.sessions.v1.orchestrator_service_pb2 import (
    EnsureOrchestratorRequest,
    EnsureOrchestratorResponse,
    GetOrchestratorRequest,
    ResetContextRequest,
)
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import Connection, insert
from sqlalchemy.exc import IntegrityError

from services.chassis.clock import Clock
from services.chassis.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied
from services.chassis.ids import new_id
from services.chassis.structs import from_struct, to_struct
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions


async def ensured(sessions: Sessions, **fields: Any) -> EnsureOrchestratorResponse:
    request = EnsureOrchestratorRequest(**{"scopes": ["agents:admin"]} | fields)
    return await sessions.orchestration(["admin"]).EnsureOrchestrator(request)


async def test_there_is_none_until_somebody_asks_for_one(sessions: Sessions) -> None:
    reader = sessions.orchestration(["agents:read"])
    with pytest.raises(NotFound) as refused:
        await reader.GetOrchestrator(GetOrchestratorRequest())
    assert refused.value.reason == "ORCHESTRATOR_NOT_FOUND"
    made = await ensured(sessions)
    assert made.created
    assert (await reader.GetOrchestrator(GetOrchestratorRequest())).orchestrator == made.orchestrator
    assert made.orchestrator.is_orchestrator
    assert made.orchestrator.name == "orchestrator"


async def test_it_is_what_was_asked_for_and_then_stays_as_it_is(sessions: Sessions) -> None:
    wanted = {"name": "boss", "model": "large", "system_prompt": "You lead.", "working_dir": "/srv"}
    made = (await ensured(sessions, **wanted, metadata=to_struct({"a": 1}))).orchestrator
    assert {name: getattr(made, name) for name in wanted} == wanted
    assert from_struct(made.metadata) == {"a": 1}
    again = await ensured(sessions, name="other", model="small")
    assert not again.created
    assert again.orchestrator == made


async def test_a_race_of_twenty_makes_one(sessions: Sessions) -> None:
    answers = await asyncio.gather(*(ensured(sessions, name=f"boss {number}") for number in range(20)))
    assert len({answer.orchestrator.id for answer in answers}) == 1
    assert [answer.created for answer in answers].count(True) == 1
    assert await sessions.count(tables.agents) == 1
    assert [entry["action"] for entry in await sessions.audited()].count("agent.create") == 1


async def test_the_database_itself_holds_no_second_one(sessions: Sessions) -> None:
    await ensured(sessions)

    def insert_by_hand(connection: Connection, clock: Clock) -> None:
        now = clock.now()
        values = {"name": "second", "scopes": [], "created_at": now, "updated_at": now, "is_orchestrator": True}
        connection.execute(insert(tables.agents).values(id=new_id(), **values))

    with pytest.raises(IntegrityError):
        await sessions.database.transact(insert_by_hand)


async def test_when_it_is_archived_the_next_one_is_made(sessions: Sessions) -> None:
    first = (await ensured(sessions)).orchestrator
    await sessions.caller(["admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=first.id))
    with pytest.raises(NotFound):
        await sessions.orchestration(["agents:read"]).GetOrchestrator(GetOrchestratorRequest())
    second = await ensured(sessions)
    assert second.created
    assert second.orchestrator.id != first.id
    assert second.orchestrator.name == first.name


async def test_its_name_may_be_taken(sessions: Sessions) -> None:
    await sessions.agent(name="orchestrator")
    with pytest.raises(AlreadyExists) as refused:
        await ensured(sessions)
    assert refused.value.reason == "AGENT_NAME_TAKEN"


async def test_it_gets_no_more_than_the_caller_holds(sessions: Sessions) -> None:
    limited = sessions.orchestration(["agents:admin"])
    with pytest.raises(PermissionDenied) as refused:
        await limited.EnsureOrchestrator(EnsureOrchestratorRequest(scopes=["admin"]))
    assert refused.value.reason == "SCOPES_NOT_HELD"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["tasks:fly"]}, "scopes[0]"),
        ({"name": "n" * 101}, "name"),
        ({"metadata": to_struct({"a": "x" * 17_000})}, "metadata"),
        ({"request_id": "k" * 256}, "request_id"),
    ],
)
async def test_one_outside_the_contract_is_refused(sessions: Sessions, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await ensured(sessions, **fields)
    assert [violation.field for violation in refused.value.violations] == [field]
    assert await sessions.count(tables.agents) == 0


async def test_agents_work_for_the_orchestrator_and_for_nobody_else(sessions: Sessions) -> None:
    boss = (await ensured(sessions)).orchestrator
    agent = await sessions.agent(orchestrator_agent_id=boss.id.upper())
    assert agent.orchestrator_agent_id == boss.id
    admin = sessions.caller(["admin"])
    for other, words in ((agent.id, "the agent itself"), (new_id(), "is not the orchestrator")):
        with pytest.raises(InvalidArgument, match=words) as refused:
            await admin.UpdateAgent(UpdateAgentRequest(agent_id=agent.id, orchestrator_agent_id=other))
        assert [violation.field for violation in refused.value.violations] == ["orchestrator_agent_id"]
    cleared = UpdateAgentRequest(agent_id=agent.id, update_mask=FieldMask(paths=["orchestrator_agent_id"]))
    assert not (await admin.UpdateAgent(cleared)).agent.HasField("orchestrator_agent_id")


async def test_agents_do_not_begin_to_work_for_an_archived_one(sessions: Sessions) -> None:
    boss = (await ensured(sessions)).orchestrator
    agent = await sessions.agent(orchestrator_agent_id=boss.id)
    admin = sessions.caller(["admin"])
    await admin.ArchiveAgent(ArchiveAgentRequest(agent_id=boss.id))
    with pytest.raises(InvalidArgument):
        await admin.CreateAgent(CreateAgentRequest(name="late", scopes=["tasks:read"], orchestrator_agent_id=boss.id))
    # Those that do can still be changed.
    changed = await admin.UpdateAgent(UpdateAgentRequest(agent_id=agent.id, model="x"))
    assert changed.agent.orchestrator_agent_id == boss.id


async def test_its_session_is_cleared(sessions: Sessions) -> None:
    caller = sessions.orchestration(["agents:admin"], agent_id=new_id())
    with pytest.raises(NotFound) as refused:
        await caller.ResetContext(ResetContextRequest())
    assert refused.value.reason == "ORCHESTRATOR_NOT_FOUND"
    boss = (await ensured(sessions, model="large")).orchestrator
    admin = sessions.caller(["admin"])
    await admin.UpdateAgent(UpdateAgentRequest(agent_id=boss.id, session_id="cli-1"))
    request = ResetContextRequest(request_id="key")
    reset = await caller.ResetContext(request)
    assert not reset.orchestrator.HasField("session_id")
    assert reset.orchestrator.model == "large"
    entry = (await sessions.audited())[-1]
    assert (entry["action"], entry["before"]) == ("agent.reset_context", {"session_id": "cli-1"})
    await admin.UpdateAgent(UpdateAgentRequest(agent_id=boss.id, session_id="cli-2"))
    # The same request again has had its effect.
    assert await caller.ResetContext(request) == reset
    assert (await ensured(sessions)).orchestrator.session_id == "cli-2"
