"""A repeated request has one effect and one answer."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import grpc
import psycopg
import pytest
from baton.sessions.v1 import agent_service_pb2 as pb
from baton.sessions.v1.agent_service_pb2 import CreateAgentRequest, CreateAgentResponse, RevokeTokenRequest
from baton.sessions.v1.agent_service_pb2_grpc import AgentServiceStub
from baton.sessions.v1.orchestrator_service_pb2 import EnsureOrchestratorRequest
from google.protobuf.message import Message
from sqlalchemy import func, select

from services.chassis.errors import Aborted, AlreadyExists, InvalidArgument, NotFound
from services.chassis.ids import new_id
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions
from tests.support.waiting import await_until

REQUEST = CreateAgentRequest(name="scribe", scopes=["tasks:read"], request_id="create the scribe")


async def test_the_same_request_again_has_the_same_answer(sessions: Sessions) -> None:
    admin = sessions.caller(["admin"])
    first = await admin.CreateAgent(REQUEST)
    sessions.clock.advance(hours=1)
    assert await admin.CreateAgent(REQUEST) == first


async def _prepared(sessions: Sessions) -> tuple[str, str]:
    """An agent and a token of it."""
    agent = await sessions.agent()
    return agent.id, (await sessions.minted(agent.id)).id


Make = Callable[[str, str], Message]
MUTATIONS: dict[str, Make] = {
    "UpdateAgent": lambda agent, token: pb.UpdateAgentRequest(agent_id=agent, model="x", version=1, request_id="key"),
    "ArchiveAgent": lambda agent, token: pb.ArchiveAgentRequest(agent_id=agent, request_id="key"),
    "SetAgentStatus": lambda agent, token: pb.SetAgentStatusRequest(agent_id=agent, status=2, request_id="key"),
    "AddAgentUsage": lambda agent, token: pb.AddAgentUsageRequest(agent_id=agent, input_tokens=1, request_id="key"),
    "RevokeToken": lambda agent, token: pb.RevokeTokenRequest(agent_id=agent, token_id=token, request_id="key"),
}


@pytest.mark.parametrize("method", MUTATIONS)
async def test_every_change_is_made_once(sessions: Sessions, method: str) -> None:
    admin = sessions.caller(["admin"], agent_id=new_id())
    request = MUTATIONS[method](*await _prepared(sessions))
    first = await getattr(admin, method)(request)
    told = len(await sessions.audited())
    sessions.clock.advance(hours=1)
    assert await getattr(admin, method)(request) == first
    assert len(await sessions.audited()) == told
    other = MUTATIONS[method](*await _prepared(sessions))
    with pytest.raises(InvalidArgument) as refused:
        await getattr(admin, method)(other)
    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_the_orchestrator_is_answered_as_it_was(sessions: Sessions) -> None:
    request = EnsureOrchestratorRequest(scopes=["tasks:read"], request_id="key")
    caller = sessions.orchestration(["admin"], agent_id=new_id())
    first = await caller.EnsureOrchestrator(request)
    assert first.created
    assert await caller.EnsureOrchestrator(request) == first


async def test_a_repeated_answer_says_that_it_is_one(sessions: Sessions) -> None:
    credentials = (("authorization", f"Bearer {sessions.signer.token(['admin'])}"),)
    async with grpc.aio.insecure_channel(sessions.address) as channel:
        first = AgentServiceStub(channel).CreateAgent(REQUEST, metadata=credentials)
        await first
        again = AgentServiceStub(channel).CreateAgent(REQUEST, metadata=credentials)
        await again
        replayed = ("idempotent-replayed", "true")
        assert replayed not in tuple(await first.trailing_metadata())
        assert replayed in tuple(await again.trailing_metadata())


async def test_twenty_at_once_have_one_effect(sessions: Sessions) -> None:
    admin = sessions.caller(["admin"])

    async def until_answered() -> CreateAgentResponse:
        while True:
            try:
                return await admin.CreateAgent(REQUEST)
            except Aborted:
                continue

    answers = await asyncio.gather(*(until_answered() for _ in range(20)))
    assert len({answer.agent.id for answer in answers}) == 1


async def test_another_request_with_the_same_key_is_refused(sessions: Sessions) -> None:
    admin = sessions.caller(["admin"])
    await admin.CreateAgent(REQUEST)
    other = CreateAgentRequest(name="other", scopes=["tasks:read"], request_id=REQUEST.request_id)
    with pytest.raises(InvalidArgument) as refused:
        await admin.CreateAgent(other)
    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"
    assert [violation.field for violation in refused.value.violations] == ["request_id"]


async def test_keys_belong_to_their_caller(sessions: Sessions) -> None:
    await sessions.caller(["admin"]).CreateAgent(REQUEST)
    # Somebody else's request with that key is a request of its own: it does what it says, and is not answered the
    # first one's answer.
    with pytest.raises(AlreadyExists):
        await sessions.caller(["admin"]).CreateAgent(REQUEST)


async def test_keys_belong_to_their_method(sessions: Sessions) -> None:
    admin = sessions.caller(["admin"])
    await admin.CreateAgent(REQUEST)
    with pytest.raises(NotFound):
        await admin.RevokeToken(RevokeTokenRequest(agent_id=new_id(), token_id=new_id(), request_id=REQUEST.request_id))


async def test_what_failed_is_tried_again(sessions: Sessions) -> None:
    agent_id = new_id()
    limited = sessions.caller(["agents:admin"], agent_id=agent_id)
    with pytest.raises(Exception, match="tasks:read"):
        await limited.CreateAgent(REQUEST)
    await sessions.caller(["admin"], agent_id=agent_id).CreateAgent(REQUEST)


async def test_an_answer_is_remembered_for_a_day(sessions: Sessions) -> None:
    agent_id = new_id()

    async def create() -> CreateAgentResponse:
        in_a_minute = sessions.clock.now() + timedelta(minutes=1)
        token = sessions.signer.token(["admin"], agent_id=agent_id, expires_at=in_a_minute)
        return await AgentServiceStub(sessions.channel(token)).CreateAgent(REQUEST)

    first = await create()
    sessions.clock.advance(days=1, microseconds=-1)
    assert await create() == first
    sessions.clock.advance(microseconds=1)
    with pytest.raises(AlreadyExists):
        await create()


async def test_expired_answers_are_deleted(sessions: Sessions) -> None:
    async def remembered() -> int:
        count = select(func.count()).select_from(tables.idempotency_keys)
        return await sessions.database.read(lambda connection, clock: connection.execute(count).scalar_one())

    await sessions.caller(["admin"]).CreateAgent(REQUEST)
    await sessions.service.idempotency.forget_expired()
    assert await remembered() == 1
    sessions.clock.advance(days=1, seconds=1)
    await sessions.service.idempotency.forget_expired()
    assert await remembered() == 0


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_a_request_that_is_still_running_is_not_started_again(sessions: Sessions, database_url: str) -> None:
    admin = sessions.caller(["admin"])
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE sessions.agents IN ACCESS EXCLUSIVE MODE")
        first = asyncio.ensure_future(admin.CreateAgent(REQUEST))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'sessions.agents'::regclass"
        await await_until(lambda: other.execute(waiting).fetchone() == (1,))
        with pytest.raises(Aborted) as refused:
            await admin.CreateAgent(REQUEST)
        assert refused.value.reason == "IDEMPOTENCY_KEY_IN_FLIGHT"
        assert refused.value.retry_after == 1
    assert await first == await admin.CreateAgent(REQUEST)
