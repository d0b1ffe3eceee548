"""Deleting an agent archives it."""

import asyncio

import pytest
from baton.sessions.v1.agent_pb2 import Agent
from baton.sessions.v1.agent_service_pb2 import (
    AddAgentUsageRequest,
    ArchiveAgentRequest,
    ArchiveAgentResponse,
    CreateTokenRequest,
    GetAgentRequest,
    ListTokensRequest,
    RotateTokenRequest,
    SetAgentStatusRequest,
    UpdateAgentRequest,
)
from baton.sessions.v1.credential_service_pb2 import CreateCredentialsRequest, ObtainTokenRequest, RefreshTokenRequest
from sqlalchemy import update

from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound, ServiceError, Unauthenticated
from services.chassis.ids import new_id
from services.chassis.timestamps import from_timestamp
from services.sessions.models.agent import SYSTEM_ID
from services.sessions.operations.agent import ensure_agent
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions


async def archive(sessions: Sessions, agent_id: str) -> ArchiveAgentResponse:
    return await sessions.caller(["agents:admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=agent_id))


async def test_an_archived_agent_is_kept_and_says_so(sessions: Sessions) -> None:
    agent = await sessions.agent(name="scribe")
    sessions.clock.advance(hours=1)
    answer = await archive(sessions, agent.id)
    assert (answer.success, answer.message) == (True, "agent 'scribe' is archived")
    assert (answer.details.agent_id, answer.details.agent_name) == (agent.id, "scribe")
    found = (await sessions.caller(["agents:read"]).GetAgent(GetAgentRequest(agent_id=agent.id))).agent
    assert found.archived
    assert from_timestamp(found.archived_at) == from_timestamp(found.updated_at) == sessions.clock.now()
    assert (found.version, list(found.scopes)) == (2, ["tasks:read"])


async def test_archiving_again_keeps_the_first_time(sessions: Sessions) -> None:
    agent = await sessions.agent()
    first = await archive(sessions, agent.id)
    sessions.clock.advance(hours=1)
    assert await archive(sessions, agent.id) == first


async def test_the_name_of_an_archived_agent_is_free(sessions: Sessions) -> None:
    for _ in range(3):
        await archive(sessions, (await sessions.agent(name="scribe")).id)
    await sessions.agent(name="scribe")


async def test_the_tokens_of_an_archived_agent_open_nothing(sessions: Sessions) -> None:
    agent = await sessions.agent()
    token = await sessions.minted(agent.id)
    secret = (await sessions.credentials().CreateCredentials(CreateCredentialsRequest(agent_id=agent.id))).agent_secret
    obtained = await sessions.anybody().ObtainToken(ObtainTokenRequest(agent_id=agent.id, agent_secret=secret))
    assert await sessions.opens(token.token)
    await archive(sessions, agent.id)
    assert not await sessions.opens(token.token)
    assert not await sessions.opens(obtained.access_token)
    with pytest.raises(Unauthenticated):
        await sessions.anybody().RefreshToken(RefreshTokenRequest(refresh_token=obtained.refresh_token))
    with pytest.raises(Unauthenticated):
        await sessions.anybody().ObtainToken(ObtainTokenRequest(agent_id=agent.id, agent_secret=secret))
    listed = await sessions.caller(["admin"]).ListTokens(ListTokensRequest(agent_id=agent.id, live_only=True))
    assert list(listed.items) == []


async def test_it_is_the_agent_that_counts_and_not_what_became_of_its_tokens(sessions: Sessions) -> None:
    agent = await sessions.agent()
    token = await sessions.minted(agent.id)
    secret = (await sessions.credentials().CreateCredentials(CreateCredentialsRequest(agent_id=agent.id))).agent_secret
    obtained = await sessions.anybody().ObtainToken(ObtainTokenRequest(agent_id=agent.id, agent_secret=secret))
    by_hand = update(tables.agents).where(tables.agents.c.id == agent.id)
    await sessions.database.transact(
        lambda connection, clock: connection.execute(by_hand.values(archived_at=clock.now())).rowcount
    )
    assert not await sessions.opens(token.token)
    assert not await sessions.opens(obtained.access_token)
    with pytest.raises(Unauthenticated):
        await sessions.anybody().RefreshToken(RefreshTokenRequest(refresh_token=obtained.refresh_token))
    with pytest.raises(Unauthenticated):
        await sessions.anybody().ObtainToken(ObtainTokenRequest(agent_id=agent.id, agent_secret=secret))


async def test_an_archived_agent_changes_no_more(sessions: Sessions) -> None:
    agent = await sessions.agent()
    token = await sessions.minted(agent.id)
    await archive(sessions, agent.id)
    admin = sessions.caller(["admin"])
    attempts = [
        admin.UpdateAgent(UpdateAgentRequest(agent_id=agent.id, name="other")),
        admin.SetAgentStatus(SetAgentStatusRequest(agent_id=agent.id, status="AGENT_STATUS_EXECUTING")),
        admin.AddAgentUsage(AddAgentUsageRequest(agent_id=agent.id, input_tokens=1)),
        admin.CreateToken(CreateTokenRequest(agent_id=agent.id)),
        admin.RotateToken(RotateTokenRequest(agent_id=agent.id, token_id=token.id)),
        sessions.credentials().CreateCredentials(CreateCredentialsRequest(agent_id=agent.id)),
    ]
    for attempt in attempts:
        with pytest.raises(FailedPrecondition, match=agent.id) as refused:
            await attempt
        assert refused.value.reason == "AGENT_ARCHIVED"


async def test_the_agent_system_cannot_be_deleted(sessions: Sessions) -> None:
    await sessions.database.transact(
        lambda connection, clock: ensure_agent(
            connection, agent_id=SYSTEM_ID, name="system", scopes=["admin"], clock=clock
        )
    )
    with pytest.raises(InvalidArgument, match="'system'") as refused:
        await archive(sessions, SYSTEM_ID)
    assert [violation.field for violation in refused.value.violations] == ["agent_id"]


@pytest.mark.parametrize("capitals", [False, True])
async def test_a_caller_cannot_delete_itself(sessions: Sessions, capitals: bool) -> None:
    agent = await sessions.agent("admin")
    own = sessions.caller(["admin"], agent_id=agent.id)
    written = agent.id.upper() if capitals else agent.id
    with pytest.raises(InvalidArgument, match="the caller itself") as refused:
        await own.ArchiveAgent(ArchiveAgentRequest(agent_id=written))
    assert [violation.field for violation in refused.value.violations] == ["agent_id"]


async def test_an_agent_that_is_not_there_is_not_archived(sessions: Sessions) -> None:
    with pytest.raises(NotFound) as refused:
        await archive(sessions, new_id())
    assert refused.value.reason == "AGENT_NOT_FOUND"


async def test_whoever_makes_tokens_while_an_agent_is_archived_has_none_in_the_end(sessions: Sessions) -> None:
    agent = await sessions.agent()

    async def mint() -> str:
        try:
            return (await sessions.minted(agent.id)).token
        except ServiceError as error:
            return error.reason

    answers = await asyncio.gather(
        *(mint() for _ in range(8)), archive(sessions, agent.id), *(mint() for _ in range(8))
    )
    texts = [answer for answer in answers if isinstance(answer, str) and answer != "AGENT_ARCHIVED"]
    assert all(text.startswith("baton_") for text in texts)
    assert not any([await sessions.opens(text) for text in texts])
    listed = await sessions.caller(["admin"]).ListTokens(ListTokensRequest(agent_id=agent.id, live_only=True))
    assert list(listed.items) == []


async def test_of_those_who_take_a_free_name_one_gets_it(sessions: Sessions) -> None:
    await archive(sessions, (await sessions.agent(name="scribe")).id)

    async def attempt() -> Agent | str:
        try:
            return (await sessions.agent(name="scribe")).name
        except ServiceError as error:
            return error.reason

    answers = await asyncio.gather(*(attempt() for _ in range(20)))
    assert sorted(map(str, answers)) == ["AGENT_NAME_TAKEN"] * 19 + ["scribe"]
