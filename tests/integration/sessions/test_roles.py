"""What an agent works as, told to the services that it calls."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from baton.sessions.v1.agent_service_pb2 import CreateAgentRequest, CreateTokenRequest

from services.chassis import call
from services.chassis.auth import AccessTokens, TokenExchange, Verifier
from services.chassis.channel import open_channel
from services.chassis.policy import policies
from services.chassis.server import create_server
from tests.integration.chassis.newsstand import KIOSK, Servicer, messages
from tests.integration.sessions.running import Sessions
from tests.support.grpc import serve_in_process


async def _role_of_the_caller(request: Any) -> Any:
    return messages.LookResponse(text=call.caller().role)


@pytest.fixture
async def kiosk(sessions: Sessions) -> AsyncIterator[str]:
    """The address of another service, which trusts the sessions service and answers its caller's role."""
    server = create_server(policies([KIOSK.descriptor]), Verifier(sessions.settings.jwks_file, sessions.clock))
    servicer = Servicer()
    servicer.answer = _role_of_the_caller
    KIOSK.stubs.add_KioskServiceServicer_to_server(servicer, server)
    async with serve_in_process(server) as address:
        yield address


@pytest.mark.parametrize("role", ["planner", ""])
async def test_the_role_of_an_agent_arrives_where_it_calls(sessions: Sessions, kiosk: str, role: str) -> None:
    admin = sessions.caller(["admin"])
    agent = (await admin.CreateAgent(CreateAgentRequest(name="scribe", scopes=["admin"], role=role))).agent
    token = (await admin.CreateToken(CreateTokenRequest(agent_id=agent.id))).token
    access_tokens = AccessTokens(TokenExchange(sessions.channel()), token)
    async with open_channel(kiosk, access_tokens=access_tokens) as channel:
        assert (await KIOSK.stubs.KioskServiceStub(channel).Look(messages.LookRequest())).text == role
