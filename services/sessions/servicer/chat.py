"""ChatService."""

from typing import Any

from baton.sessions.v1 import chat_service_pb2 as pb
from baton.sessions.v1 import chat_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.chassis.paging import Cursors, page_limit
from services.chassis.wakeup import Wakeup
from services.sessions.convert import chat as convert
from services.sessions.operations import chat as operations
from services.sessions.store import chat as store

_Context = ServicerContext[Any, Any]


class ChatServicer(rpc.ChatServiceServicer):
    """What is said, and told to those who watch through `wakeup`."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors, wakeup: Wakeup) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors
        self._wakeup = wakeup

    async def SendChatMessage(
        self, request: pb.SendChatMessageRequest, context: _Context
    ) -> pb.SendChatMessageResponse:
        new, sender = convert.new_message(request), caller()

        def send(connection: Connection, clock: Clock) -> pb.SendChatMessageResponse:
            message = operations.send_message(connection, new, sender, clock, request_id=request.request_id)
            return pb.SendChatMessageResponse(message=convert.chat_message(message))

        response = await self._idempotency.once(request, pb.SendChatMessageResponse, send)
        self._wakeup.notify("")
        return response

    async def ListChatMessages(
        self, request: pb.ListChatMessagesRequest, context: _Context
    ) -> pb.ListChatMessagesResponse:
        position, limit, wanted = self._cursors.decode(request), page_limit(request), convert.chat_filter(request)
        before = int(position[0]) if position else None
        messages = await self._database.read(
            lambda connection, clock: store.list_messages(connection, wanted, limit=limit + 1, before=before)
        )
        items, cursor = self._cursors.page(request, messages, convert.chat_message, lambda message: message.position)
        return pb.ListChatMessagesResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def LoadChat(self, request: pb.LoadChatRequest, context: _Context) -> pb.LoadChatResponse:
        orchestrator_id, limit = stored_id(request.orchestrator_agent_id), page_limit(request)
        messages, count = await self._database.read(
            lambda connection, clock: operations.load(connection, orchestrator_id=orchestrator_id, limit=limit)
        )
        return pb.LoadChatResponse(messages=map(convert.chat_message, messages), turn_count=count)
