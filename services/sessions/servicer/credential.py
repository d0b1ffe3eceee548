"""CredentialService.

Its public methods read first, and know the caller only by what was proven: so an attempt that fails writes nothing, and
the key of a request is its prover's own.
"""

from typing import Any

from baton.sessions.v1 import credential_service_pb2 as pb
from baton.sessions.v1 import credential_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import caller, identify
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.sessions.convert import token as convert
from services.sessions.errors import TokenInvalid, TokenReused
from services.sessions.operations import credential as operations
from services.sessions.operations.token import proven

_Context = ServicerContext[Any, Any]


class CredentialServicer(rpc.CredentialServiceServicer):
    """Secrets of agents, and the tokens that they obtain with them."""

    def __init__(self, database: Database, idempotency: Idempotency) -> None:
        self._database = database
        self._idempotency = idempotency

    async def CreateCredentials(
        self, request: pb.CreateCredentialsRequest, context: _Context
    ) -> pb.CreateCredentialsResponse:
        agent_id, maker = stored_id(request.agent_id), caller()

        def create(connection: Connection, clock: Clock) -> pb.CreateCredentialsResponse:
            secret = operations.create_credentials(connection, agent_id, maker, clock, request_id=request.request_id)
            message = "keep the secret: it is shown this once"
            return pb.CreateCredentialsResponse(agent_id=agent_id, agent_secret=secret, message=message)

        return await self._idempotency.once(request, pb.CreateCredentialsResponse, create, answer_is_secret=True)

    async def ObtainToken(self, request: pb.ObtainTokenRequest, context: _Context) -> pb.ObtainTokenResponse:
        agent_id, secret = stored_id(request.agent_id), request.agent_secret
        await self._database.read(
            lambda connection, clock: operations.check_secret(connection, agent_id=agent_id, secret=secret)
        )
        identify(agent_id)

        def obtain(connection: Connection, clock: Clock) -> pb.ObtainTokenResponse:
            obtained = operations.obtain_tokens(
                connection, agent_id=agent_id, secret=secret, clock=clock, request_id=request.request_id
            )
            return convert.obtained_message(obtained)

        return await self._idempotency.once(request, pb.ObtainTokenResponse, obtain, answer_is_secret=True)

    async def RefreshToken(self, request: pb.RefreshTokenRequest, context: _Context) -> pb.RefreshTokenResponse:
        text = request.refresh_token
        agent_id = await self._identified(text)

        def refresh(connection: Connection, clock: Clock) -> pb.RefreshTokenResponse:
            obtained = operations.refresh_tokens(connection, text=text, clock=clock, request_id=request.request_id)
            return convert.refreshed_message(obtained)

        try:
            return await self._idempotency.once(request, pb.RefreshTokenResponse, refresh, answer_is_secret=True)
        except TokenReused as reused:
            # In a transaction of its own: the refusal has rolled the first one back.
            family_id = reused.family_id
            await self._database.transact(
                lambda connection, clock: operations.end_reused(
                    connection, family_id=family_id, agent_id=agent_id, clock=clock
                )
            )
            raise TokenInvalid from None

    async def SurrenderToken(self, request: pb.SurrenderTokenRequest, context: _Context) -> pb.SurrenderTokenResponse:
        text = request.refresh_token
        await self._identified(text)

        def surrender(connection: Connection, clock: Clock) -> pb.SurrenderTokenResponse:
            token = operations.surrender_token(connection, text=text, clock=clock, request_id=request.request_id)
            return pb.SurrenderTokenResponse(success=True, message=f"token {token.id} is revoked")

        return await self._idempotency.once(request, pb.SurrenderTokenResponse, surrender)

    async def _identified(self, text: str) -> str:
        """The agent whose token `text` is or was, who is the caller from now on. Raises TokenInvalid."""
        token, _ = await self._database.read(lambda connection, clock: proven(connection, text=text))
        identify(token.agent_id)
        return token.agent_id
