"""Delivers what is in a context's outbox, oldest first, at least once."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import orjson
from baton.api.v1 import inbox_service_pb2, inbox_service_pb2_grpc
from grpc.aio import Channel
from sqlalchemy import Connection, Table

from services import metric_names
from services.chassis import outbox, telemetry
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.outbox import Message, Take
from services.chassis.timestamps import to_timestamp

Deliver = Callable[[Sequence[Message]], Awaitable[None]]
"""Hands messages of one topic over; returns once they are safe. Raises ServiceError."""
_BATCH = 200
_MAX_BATCH_BYTES = 4 * 1024 * 1024
# Between looks: what others have put there is found by looking.
_POLL_SECONDS = 0.25


def to_inbox(channel: Channel, source: str) -> Deliver:
    """Delivers to the inbox of another context, as messages of the context `source`."""
    stub = inbox_service_pb2_grpc.InboxServiceStub(channel)

    async def deliver(messages: Sequence[Message]) -> None:
        request = inbox_service_pb2.DeliverMessagesRequest(source=source)
        size = 0
        for message in messages:
            payload = orjson.dumps(message.payload)
            if request.messages and size + len(payload) > _MAX_BATCH_BYTES:
                await stub.DeliverMessages(request)
                del request.messages[:]
                size = 0
            size += len(payload)
            request.messages.add(
                id=message.id, topic=message.topic, payload=payload, created_at=to_timestamp(message.created_at)
            )
        await stub.DeliverMessages(request)

    return deliver


def to_own(database: Database, take: Take, source: str) -> Deliver:
    """Delivers to `take` in the context's own database: it hears of itself as others do."""

    async def deliver(messages: Sequence[Message]) -> None:
        await database.transact(lambda connection, clock: take(connection, clock, source, messages))

    return deliver


class Relay:
    """Delivers the messages of one topic; `step` is for `loops.forever`.

    Every replica has one. Two of them may deliver a message at the same time: whoever takes it takes it once.
    """

    def __init__(self, database: Database, table: Table, topic: str, deliver: Deliver) -> None:
        self._database = database
        self._table = table
        self._topic = topic
        self._deliver = deliver
        self._lag = telemetry.meter().create_histogram(
            metric_names.OUTBOX_LAG,
            unit="s",
            description="from when a message was put into the outbox until its delivery",
        )

    async def step(self) -> float:
        """Delivers the oldest messages. Raises ServiceError: they stay, and are tried again."""
        messages = await self._database.read(
            lambda connection, clock: outbox.oldest(connection, self._table, self._topic, _BATCH)
        )
        if not messages:
            return _POLL_SECONDS
        await self._deliver(messages)
        now = await self._database.transact(lambda connection, clock: self._forget(connection, clock, messages))
        for message in messages:
            self._lag.record(max(0.0, (now - message.created_at).total_seconds()), {"topic": self._topic})
        return 0.0 if len(messages) == _BATCH else _POLL_SECONDS

    def _forget(self, connection: Connection, clock: Clock, messages: Sequence[Message]) -> datetime:
        outbox.forget(connection, self._table, [message.id for message in messages])
        return clock.now()
