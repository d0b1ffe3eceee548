"""SessionService: a message in, one rule, a message out."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from baton.sessions.v1 import session_service_pb2 as pb
from baton.sessions.v1 import session_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.chassis.paging import Cursors, page_limit
from services.sessions.convert import session as convert
from services.sessions.models.session import Session, Transition
from services.sessions.operations import session as operations
from services.sessions.store import session as store

_COUNTED = 10_001
_Context = ServicerContext[Any, Any]


class SessionServicer(rpc.SessionServiceServicer):
    """Sessions of agents, which expire after `retention` without activity; None for never."""

    def __init__(
        self, database: Database, idempotency: Idempotency, cursors: Cursors, retention: timedelta | None
    ) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors
        self._retention = retention

    async def CreateSession(self, request: pb.CreateSessionRequest, context: _Context) -> pb.CreateSessionResponse:
        maker = caller()
        new = convert.new_session(request, maker)

        def create(connection: Connection, clock: Clock) -> pb.CreateSessionResponse:
            session = operations.create_session(connection, new, maker, clock, request_id=request.request_id)
            return convert.created_message(session)

        return await self._idempotency.once(request, pb.CreateSessionResponse, create)

    async def ListSessions(self, request: pb.ListSessionsRequest, context: _Context) -> pb.ListSessionsResponse:
        page, wanted = convert.page(request), convert.session_filter(request)
        bound = convert.cursor_request(request, page)
        position = self._cursors.decode(bound)
        before_id = str(position[0]) if position else None

        def found(connection: Connection, clock: Clock) -> tuple[list[Session], int | None]:
            rows = store.list_sessions(connection, wanted, limit=page.size + 1, before_id=before_id, offset=page.offset)
            return rows, None if before_id else store.count_sessions(connection, wanted, at_most=_COUNTED)

        rows, total = await self._database.read(found)
        sessions, cursor = self._page(bound, rows, page)
        return pb.ListSessionsResponse(
            sessions=sessions,
            total=total,
            page=page.number,
            page_size=page.size,
            next_cursor=cursor,
            has_more=cursor is not None,
        )

    async def ListActiveSessions(
        self, request: pb.ListActiveSessionsRequest, context: _Context
    ) -> pb.ListActiveSessionsResponse:
        limit, before = page_limit(request), convert.active_before(self._cursors.decode(request))
        found = await self._database.read(
            lambda connection, clock: store.list_active(
                connection, agent_role=request.agent_role, limit=limit + 1, before=before
            )
        )
        items, cursor = self._cursors.page(request, found, convert.row_message, convert.active_position)
        return pb.ListActiveSessionsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def GetSession(self, request: pb.GetSessionRequest, context: _Context) -> pb.GetSessionResponse:
        session_id = stored_id(request.session_id)
        session = await self._database.read(lambda connection, clock: operations.get_session(connection, session_id))
        return pb.GetSessionResponse(session=convert.session_message(session, self._retention))

    async def UpdateSession(self, request: pb.UpdateSessionRequest, context: _Context) -> pb.UpdateSessionResponse:
        session_id, changes, changer = stored_id(request.session_id), convert.session_changes(request), caller()
        version = convert.expected_version(request)

        def change(connection: Connection, clock: Clock) -> pb.UpdateSessionResponse:
            session = operations.update_session(
                connection,
                session_id,
                changes,
                changer,
                clock,
                self._retention,
                version=version,
                reason=request.reason,
                request_id=request.request_id,
            )
            return pb.UpdateSessionResponse(session=convert.session_message(session, self._retention))

        return await self._idempotency.once(request, pb.UpdateSessionResponse, change)

    async def SendSessionEvent(
        self, request: pb.SendSessionEventRequest, context: _Context
    ) -> pb.SendSessionEventResponse:
        session_id, event, sender = stored_id(request.session_id), convert.session_event(request), caller()
        version = convert.expected_version(request)

        def send(connection: Connection, clock: Clock) -> pb.SendSessionEventResponse:
            session = operations.send_event(
                connection,
                session_id,
                event,
                sender,
                clock,
                self._retention,
                version=version,
                reason=request.reason,
                request_id=request.request_id,
            )
            return pb.SendSessionEventResponse(session=convert.session_message(session, self._retention))

        return await self._idempotency.once(request, pb.SendSessionEventResponse, send)

    async def HeartbeatSession(
        self, request: pb.HeartbeatSessionRequest, context: _Context
    ) -> pb.HeartbeatSessionResponse:
        session_id, sender = stored_id(request.session_id), caller()
        session = await self._database.transact(
            lambda connection, clock: operations.record_heartbeat(
                connection, session_id, sender, clock, self._retention
            )
        )
        return convert.heartbeat_message(session, self._retention)

    async def ListSessionTransitions(
        self, request: pb.ListSessionTransitionsRequest, context: _Context
    ) -> pb.ListSessionTransitionsResponse:
        session_id, limit, position = stored_id(request.session_id), page_limit(request), self._cursors.decode(request)
        before_version = int(position[0]) if position else None

        def found(connection: Connection, clock: Clock) -> list[Transition]:
            operations.get_session(connection, session_id)
            return store.list_transitions(connection, session_id, limit=limit + 1, before_version=before_version)

        rows = await self._database.read(found)
        items, cursor = self._cursors.page(request, rows, convert.transition_message, lambda row: row.version)
        return pb.ListSessionTransitionsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    def _page(
        self, bound: pb.ListSessionsRequest, rows: Sequence[Session], page: convert.Page
    ) -> tuple[list[Any], str | None]:
        if page.number is None:
            return self._cursors.page(bound, rows, convert.row_message, lambda session: session.id)
        # A numbered page is whole, however large: what it left out would be on no page.
        shown = rows[: page.size]
        cursor = self._cursors.encode(bound, [shown[-1].id]) if len(rows) > page.size else None
        return [convert.row_message(session) for session in shown], cursor
