"""AuthService."""

from typing import Any

from baton.api.v1 import auth_service_pb2 as pb
from baton.api.v1 import auth_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from joserfc.jwk import OKPKey

from services.chassis import call
from services.chassis.database import Database
from services.chassis.ids import stored_id
from services.chassis.timestamps import to_timestamp
from services.sessions import access_tokens
from services.sessions.convert import token as convert
from services.sessions.last_used import LastUsed
from services.sessions.operations import token as operations
from services.sessions.operations.acting import act_for_agent


class AuthServicer(rpc.AuthServiceServicer):
    """Exchanges opaque tokens for access tokens signed with `signing_key`."""

    def __init__(self, database: Database, signing_key: OKPKey, last_used: LastUsed) -> None:
        self._database = database
        self._signing_key = signing_key
        self._last_used = last_used

    async def ExchangeToken(
        self, request: pb.ExchangeTokenRequest, context: ServicerContext[Any, Any]
    ) -> pb.ExchangeTokenResponse:
        grant = await self._database.read(
            lambda connection, clock: operations.exchange_token(connection, text=request.token, clock=clock)
        )
        self._last_used.note(grant.token_id, grant.issued_at)
        return convert.exchanged_message(grant, access_tokens.sign(grant, self._signing_key))

    async def ActForAgent(
        self, request: pb.ActForAgentRequest, context: ServicerContext[Any, Any]
    ) -> pb.ActForAgentResponse:
        caller, agent_id, run_id = call.caller(), stored_id(request.agent_id), stored_id(request.run_id)
        grant = await self._database.read(
            lambda connection, clock: act_for_agent(
                connection, caller=caller, agent_id=agent_id, scopes=request.scopes, run_id=run_id, clock=clock
            )
        )
        return pb.ActForAgentResponse(
            access_token=access_tokens.sign(grant, self._signing_key), expires_at=to_timestamp(grant.expires_at)
        )
