"""The RPCs of the sessions context: a message in, one rule, a message out."""

from typing import Any

from baton.api.v1 import auth_service_pb2, auth_service_pb2_grpc
from baton.sessions.v1 import agent_service_pb2, agent_service_pb2_grpc
from grpc.aio import ServicerContext
from joserfc.jwk import OKPKey
from sqlalchemy import Connection

from services.chassis import call
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.chassis.timestamps import to_timestamp
from services.sessions import access_tokens, convert, operations

_Context = ServicerContext[Any, Any]


class AuthServicer(auth_service_pb2_grpc.AuthServiceServicer):
    """Exchanges opaque tokens for access tokens signed with `signing_key`."""

    def __init__(self, database: Database, signing_key: OKPKey) -> None:
        self._database = database
        self._signing_key = signing_key

    async def ExchangeToken(
        self, request: auth_service_pb2.ExchangeTokenRequest, context: _Context
    ) -> auth_service_pb2.ExchangeTokenResponse:
        grant = await self._database.read(
            lambda connection, clock: operations.exchange_token(connection, text=request.token, clock=clock)
        )
        return convert.to_exchanged_token(grant, access_tokens.sign(grant, self._signing_key))

    async def ActForAgent(
        self, request: auth_service_pb2.ActForAgentRequest, context: _Context
    ) -> auth_service_pb2.ActForAgentResponse:
        caller = call.caller()
        grant = await self._database.read(
            lambda connection, clock: operations.act_for_agent(
                connection,
                caller=caller,
                agent_id=stored_id(request.agent_id),
                scopes=request.scopes,
                run_id=stored_id(request.run_id),
                clock=clock,
            )
        )
        return auth_service_pb2.ActForAgentResponse(
            access_token=access_tokens.sign(grant, self._signing_key), expires_at=to_timestamp(grant.expires_at)
        )


class AgentServicer(agent_service_pb2_grpc.AgentServiceServicer):
    """Agents and the tokens they call with."""

    def __init__(self, database: Database, idempotency: Idempotency) -> None:
        self._database = database
        self._idempotency = idempotency

    async def CreateAgent(
        self, request: agent_service_pb2.CreateAgentRequest, context: _Context
    ) -> agent_service_pb2.CreateAgentResponse:
        caller = call.caller()

        def create(connection: Connection, clock: Clock) -> agent_service_pb2.CreateAgentResponse:
            agent = operations.create_agent(
                connection,
                caller=caller,
                name=request.name,
                scopes=request.scopes,
                role=request.role,
                clock=clock,
            )
            return agent_service_pb2.CreateAgentResponse(agent=convert.to_agent(agent))

        return await self._idempotency.once(request, agent_service_pb2.CreateAgentResponse, create)

    async def GetAgent(
        self, request: agent_service_pb2.GetAgentRequest, context: _Context
    ) -> agent_service_pb2.GetAgentResponse:
        agent_id = stored_id(request.agent_id)
        agent = await self._database.read(lambda connection, clock: operations.get_agent(connection, agent_id=agent_id))
        return agent_service_pb2.GetAgentResponse(agent=convert.to_agent(agent))

    async def CreateToken(
        self, request: agent_service_pb2.CreateTokenRequest, context: _Context
    ) -> agent_service_pb2.CreateTokenResponse:
        caller = call.caller()

        def create(connection: Connection, clock: Clock) -> agent_service_pb2.CreateTokenResponse:
            minted = operations.create_token(
                connection,
                caller=caller,
                agent_id=stored_id(request.agent_id),
                scopes=request.scopes,
                lifetime=convert.lifetime(request, default=operations.TOKEN_LIFETIME),
                clock=clock,
            )
            return convert.to_created_token(minted)

        return await self._idempotency.once(
            request, agent_service_pb2.CreateTokenResponse, create, answer_is_secret=True
        )

    async def RevokeToken(
        self, request: agent_service_pb2.RevokeTokenRequest, context: _Context
    ) -> agent_service_pb2.RevokeTokenResponse:
        def revoke(connection: Connection, clock: Clock) -> agent_service_pb2.RevokeTokenResponse:
            token = operations.revoke_token(
                connection,
                agent_id=stored_id(request.agent_id),
                token_id=stored_id(request.token_id),
                clock=clock,
            )
            return convert.to_revoked_token(token)

        return await self._idempotency.once(request, agent_service_pb2.RevokeTokenResponse, revoke)
