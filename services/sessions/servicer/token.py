"""The methods of AgentService about tokens."""

from typing import Any

from baton.sessions.v1 import agent_service_pb2 as pb
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.chassis.paging import Cursors, page_limit
from services.sessions.convert import token as convert
from services.sessions.models.token import Token
from services.sessions.operations import token as operations
from services.sessions.operations.agent import get_agent
from services.sessions.store import token as store

_Context = ServicerContext[Any, Any]


class TokenMethods:
    """Minting, listing, rotating and revoking tokens."""

    _database: Database
    _idempotency: Idempotency
    _cursors: Cursors

    async def CreateToken(self, request: pb.CreateTokenRequest, context: _Context) -> pb.CreateTokenResponse:
        minter = caller()

        def create(connection: Connection, clock: Clock) -> pb.CreateTokenResponse:
            minted = operations.create_token(
                connection,
                caller=minter,
                agent_id=stored_id(request.agent_id),
                scopes=request.scopes,
                lifetime=convert.lifetime(request, default=operations.TOKEN_LIFETIME),
                clock=clock,
                request_id=request.request_id,
            )
            return convert.created_message(minted)

        return await self._idempotency.once(request, pb.CreateTokenResponse, create, answer_is_secret=True)

    async def ListTokens(self, request: pb.ListTokensRequest, context: _Context) -> pb.ListTokensResponse:
        position, limit, agent_id = self._cursors.decode(request), page_limit(request), stored_id(request.agent_id)
        before_id = str(position[0]) if position else None

        def read(connection: Connection, clock: Clock) -> list[Token]:
            get_agent(connection, agent_id=agent_id)
            wanted = convert.token_filter(request, clock.now())
            return store.list_tokens(connection, agent_id, wanted, limit=limit + 1, before_id=before_id)

        items, cursor = self._cursors.page(
            request, await self._database.read(read), convert.token_message, lambda token: token.id
        )
        return pb.ListTokensResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def RotateToken(self, request: pb.RotateTokenRequest, context: _Context) -> pb.RotateTokenResponse:
        rotator = caller()

        def rotate(connection: Connection, clock: Clock) -> pb.RotateTokenResponse:
            rotation = operations.rotate_token(
                connection,
                caller=rotator,
                agent_id=stored_id(request.agent_id),
                token_id=stored_id(request.token_id),
                overlap=convert.overlap(request, default=operations.OVERLAP),
                lifetime=convert.lifetime(request, default=operations.TOKEN_LIFETIME),
                clock=clock,
                request_id=request.request_id,
            )
            return convert.rotated_message(rotation)

        return await self._idempotency.once(request, pb.RotateTokenResponse, rotate, answer_is_secret=True)

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: _Context) -> pb.RevokeTokenResponse:
        revoker = caller()

        def revoke(connection: Connection, clock: Clock) -> pb.RevokeTokenResponse:
            token = operations.revoke_token(
                connection,
                agent_id=stored_id(request.agent_id),
                token_id=stored_id(request.token_id),
                actor=revoker.agent_id,
                clock=clock,
                request_id=request.request_id,
            )
            return convert.revoked_message(token)

        return await self._idempotency.once(request, pb.RevokeTokenResponse, revoke)
