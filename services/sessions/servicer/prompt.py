"""PromptService."""

from typing import Any

from baton.sessions.v1 import prompt_service_pb2 as pb
from baton.sessions.v1 import prompt_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.chassis.paging import Cursors, page_limit
from services.sessions.convert import prompt as convert
from services.sessions.operations import prompt as operations
from services.sessions.store import prompt as store

_Context = ServicerContext[Any, Any]


class PromptServicer(rpc.PromptServiceServicer):
    """What agents were told to do."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors

    async def RecordPrompt(self, request: pb.RecordPromptRequest, context: _Context) -> pb.RecordPromptResponse:
        new, recorder = convert.new_prompt(request), caller()

        def record(connection: Connection, clock: Clock) -> pb.RecordPromptResponse:
            prompt = operations.record_prompt(connection, new, recorder, clock, request_id=request.request_id)
            return pb.RecordPromptResponse(prompt=convert.prompt_message(prompt))

        return await self._idempotency.once(request, pb.RecordPromptResponse, record)

    async def GetPrompt(self, request: pb.GetPromptRequest, context: _Context) -> pb.GetPromptResponse:
        prompt_id = stored_id(request.prompt_id)
        prompt = await self._database.read(
            lambda connection, clock: operations.get_prompt(connection, prompt_id=prompt_id)
        )
        return pb.GetPromptResponse(prompt=convert.prompt_message(prompt))

    async def ListPrompts(self, request: pb.ListPromptsRequest, context: _Context) -> pb.ListPromptsResponse:
        position, limit, wanted = self._cursors.decode(request), page_limit(request), convert.prompt_filter(request)
        before_id = str(position[0]) if position else None
        prompts = await self._database.read(
            lambda connection, clock: store.list_prompts(connection, wanted, limit=limit + 1, before_id=before_id)
        )
        items, cursor = self._cursors.page(request, prompts, convert.prompt_message, lambda prompt: prompt.id)
        return pb.ListPromptsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)
