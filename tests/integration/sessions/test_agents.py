"""Creating and reading agents."""

import asyncio
from uuid import UUID

import pytest
from baton.sessions.v1.agent_service_pb2 import CreateAgentRequest, CreateTokenRequest, GetAgentRequest

from services.chassis.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied, ServiceError
from services.chassis.ids import new_id
from tests.integration.sessions.running import Sessions


async def test_a_created_agent_can_be_read(sessions: Sessions) -> None:
    admin = sessions.caller(["admin"])
    request = CreateAgentRequest(name="scribe", scopes=["tasks:write", "runs:read"])
    created = (await admin.CreateAgent(request)).agent
    assert UUID(created.id).version == 7
    assert (created.name, list(created.scopes)) == ("scribe", ["runs:read", "tasks:write"])
    assert created.created_at.ToDatetime() == created.updated_at.ToDatetime()
    assert created.created_at.seconds == sessions.clock.now().timestamp()
    assert (await admin.GetAgent(GetAgentRequest(agent_id=created.id))).agent == created
    # A UUID is the same one in capitals.
    assert (await admin.GetAgent(GetAgentRequest(agent_id=created.id.upper()))).agent == created


@pytest.mark.parametrize("role", ["planner", "Test_Auditor-2", "r" * 50])
async def test_an_agent_shows_the_role_that_it_was_created_with(sessions: Sessions, role: str) -> None:
    admin = sessions.caller(["admin"])
    created = (await admin.CreateAgent(CreateAgentRequest(name="scribe", scopes=["tasks:read"], role=role))).agent
    assert created.role == role
    assert (await admin.GetAgent(GetAgentRequest(agent_id=created.id))).agent == created


async def test_an_agent_has_no_role_unless_it_is_given_one(sessions: Sessions) -> None:
    admin = sessions.caller(["admin"])
    created = (await admin.CreateAgent(CreateAgentRequest(name="scribe", scopes=["tasks:read"]))).agent
    assert created.role == ""
    assert (await admin.GetAgent(GetAgentRequest(agent_id=created.id))).agent.role == ""


@pytest.mark.parametrize("role", ["r" * 51, "a b", "a:b", "ă", "planner\n", "a\x00b"])
async def test_a_role_outside_its_limits_is_refused_and_nothing_stored(sessions: Sessions, role: str) -> None:
    admin = sessions.caller(["admin"])
    with pytest.raises(InvalidArgument) as refused:
        await admin.CreateAgent(CreateAgentRequest(name="scribe", scopes=["tasks:read"], role=role))
    assert {violation.field for violation in refused.value.violations} == {"role"}
    # The name is still free.
    await admin.CreateAgent(CreateAgentRequest(name="scribe", scopes=["tasks:read"]))


async def test_an_agent_and_its_tokens_hold_scopes_that_tool_servers_ask_for(sessions: Sessions) -> None:
    admin = sessions.caller(["admin"])
    request = CreateAgentRequest(name="scribe", scopes=["tasks:write", "tool:calendar.read"])
    created = (await admin.CreateAgent(request)).agent
    assert list(created.scopes) == ["tasks:write", "tool:calendar.read"]
    minted = await admin.CreateToken(CreateTokenRequest(agent_id=created.id, scopes=["tool:calendar.read"]))
    assert list(minted.scopes) == ["tool:calendar.read"]
    with pytest.raises(PermissionDenied, match=r"tool:notify") as refused:
        await admin.CreateToken(CreateTokenRequest(agent_id=created.id, scopes=["tool:notify"]))
    assert refused.value.reason == "SCOPES_NOT_HELD"


async def test_a_name_is_taken_once(sessions: Sessions) -> None:
    admin = sessions.caller(["admin"])
    await admin.CreateAgent(CreateAgentRequest(name="scribe", scopes=["tasks:read"]))
    with pytest.raises(AlreadyExists, match="'scribe'") as refused:
        await admin.CreateAgent(CreateAgentRequest(name="scribe", scopes=["runs:read"]))
    assert refused.value.reason == "AGENT_NAME_TAKEN"
    assert refused.value.metadata == {"name": "scribe"}


async def test_of_twenty_callers_racing_for_a_name_one_wins(sessions: Sessions) -> None:
    admin = sessions.caller(["admin"])
    request = CreateAgentRequest(name="scribe", scopes=["tasks:read"])

    async def attempt() -> str:
        try:
            return (await admin.CreateAgent(request)).agent.id
        except ServiceError as error:
            return error.reason

    answers = await asyncio.gather(*(attempt() for _ in range(20)))
    assert answers.count("AGENT_NAME_TAKEN") == 19


async def test_nobody_gives_what_they_do_not_hold(sessions: Sessions) -> None:
    limited = sessions.caller(["agents:admin", "tasks:read"])
    with pytest.raises(PermissionDenied, match="runs:read, tasks:write") as refused:
        await limited.CreateAgent(CreateAgentRequest(name="scribe", scopes=["tasks:write", "tasks:read", "runs:read"]))
    assert refused.value.reason == "SCOPES_NOT_HELD"
    # Nothing was stored: the name is still free.
    await limited.CreateAgent(CreateAgentRequest(name="scribe", scopes=["tasks:read"]))


async def test_only_admin_makes_an_admin(sessions: Sessions) -> None:
    with pytest.raises(PermissionDenied) as refused:
        await sessions.caller(["agents:admin"]).CreateAgent(CreateAgentRequest(name="boss", scopes=["admin"]))
    assert refused.value.reason == "SCOPES_NOT_HELD"
    await sessions.caller(["admin"]).CreateAgent(CreateAgentRequest(name="boss", scopes=["admin"]))


async def test_a_scope_that_does_not_exist_is_named(sessions: Sessions) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await sessions.caller(["admin"]).CreateAgent(
            CreateAgentRequest(name="scribe", scopes=["tasks:read", "tasks:fly"])
        )
    (violation,) = refused.value.violations
    assert violation.field == "scopes[1]"
    assert "'tasks:fly'" in violation.description
    assert "workflows:write" in violation.description


@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (CreateAgentRequest(scopes=["tasks:read"]), "name"),
        (CreateAgentRequest(name="n" * 101, scopes=["tasks:read"]), "name"),
        (CreateAgentRequest(name="a\x00b", scopes=["tasks:read"]), "name"),
        (CreateAgentRequest(name="scribe"), "scopes"),
        (CreateAgentRequest(name="scribe", scopes=["tasks:read", "tasks:read"]), "scopes"),
        (CreateAgentRequest(name="scribe", scopes=["Tasks Read"]), "scopes[0]"),
        (CreateAgentRequest(name="scribe", scopes=["tool:a b"]), "scopes[0]"),
        (CreateAgentRequest(name="scribe", scopes=["tasks:read"], request_id="k" * 256), "request_id"),
    ],
)
async def test_a_request_outside_the_contract_is_refused(
    sessions: Sessions, request_message: CreateAgentRequest, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await sessions.caller(["admin"]).CreateAgent(request_message)
    assert field in [violation.field for violation in refused.value.violations]


async def test_a_name_may_be_a_hundred_characters_of_any_script(sessions: Sessions) -> None:
    name = "ă" * 99 + "🎻"
    created = await sessions.caller(["admin"]).CreateAgent(CreateAgentRequest(name=name, scopes=["tasks:read"]))
    assert created.agent.name == name


async def test_an_agent_that_is_not_there_is_not_found(sessions: Sessions) -> None:
    agent_id = new_id()
    with pytest.raises(NotFound, match=agent_id) as refused:
        await sessions.caller(["agents:read"]).GetAgent(GetAgentRequest(agent_id=agent_id))
    assert refused.value.reason == "AGENT_NOT_FOUND"


async def test_an_id_that_is_no_uuid_is_refused(sessions: Sessions) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await sessions.caller(["agents:read"]).GetAgent(GetAgentRequest(agent_id="scribe"))
    assert refused.value.violations[0].field == "agent_id"
