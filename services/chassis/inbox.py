"""InboxService: what other contexts have put into their outboxes for this one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from baton.api.v1 import inbox_service_pb2, inbox_service_pb2_grpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection, func, select

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import stored_id
from services.chassis.outbox import Message, MessageRefused, Take
from services.chassis.timestamps import from_timestamp


class InboxServicer(inbox_service_pb2_grpc.InboxServiceServicer):
    """Takes messages of the topics that it is given somebody for."""

    def __init__(
        self, database: Database, takers: Mapping[str, Take], taken: Callable[[Sequence[Message]], None] | None = None
    ) -> None:
        """`taken` hears of messages once they are stored."""
        self._database = database
        self._takers = takers
        self._taken = taken

    async def DeliverMessages(
        self, request: inbox_service_pb2.DeliverMessagesRequest, context: ServicerContext[Any, Any]
    ) -> inbox_service_pb2.DeliverMessagesResponse:
        messages = [self._message(f"messages[{index}]", one) for index, one in enumerate(request.messages)]
        by_topic: dict[str, list[Message]] = {}
        for message in messages:
            by_topic.setdefault(message.topic, []).append(message)
        await self._database.transact(lambda connection, clock: self._take(connection, clock, request.source, by_topic))
        if self._taken is not None:
            self._taken(messages)
        return inbox_service_pb2.DeliverMessagesResponse()

    def _message(self, field: str, message: inbox_service_pb2.OutboxMessage) -> Message:
        if message.topic not in self._takers:
            raise InvalidArgument.of([Violation(f"{field}.topic", f"nobody here takes {message.topic!r}")])
        try:
            payload = orjson.loads(message.payload)
        except orjson.JSONDecodeError:
            payload = None
        if not isinstance(payload, dict):
            raise InvalidArgument.of([Violation(f"{field}.payload", "is no JSON object")])
        return Message(stored_id(message.id), message.topic, payload, from_timestamp(message.created_at))

    def _take(
        self, connection: Connection, clock: Clock, source: str, by_topic: Mapping[str, Sequence[Message]]
    ) -> None:
        _one_at_a_time(connection, source)
        for topic, messages in by_topic.items():
            try:
                self._takers[topic](connection, clock, source, messages)
            except MessageRefused as refused:
                description = f"message {refused.message_id} of topic {topic!r} {refused}"
                raise InvalidArgument.of([Violation("messages", description)]) from None


def _one_at_a_time(connection: Connection, source: str) -> None:
    """Waits for other deliveries of a context to end: two of its replicas may deliver the same at once.

    SQLite has one writer anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"inbox of {source}", 0))))
