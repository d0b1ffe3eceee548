"""Consumers of a Redis Stream, and what they have made of its messages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import select

from services.chassis.ids import new_id
from services.chassis.wakeup import Wakeup
from services.tasks.store import tables
from services.tasks.stream import Source, StreamConsumer
from tests.integration.tasks.running import Tasks
from tests.support.valkey import GROUP, KEY, Stream

AGENT = new_id()


@asynccontextmanager
async def consumer(tasks: Tasks, server: Stream, *, url: str = "", **settings: Any) -> AsyncIterator[StreamConsumer]:
    """One consumer of the group, which does nothing by itself."""
    one = StreamConsumer(tasks.database, Source(url or server.url, KEY, GROUP, AGENT, **settings), Wakeup(), Wakeup())
    try:
        yield one
    finally:
        await one.close()


async def step(tasks: Tasks, one: StreamConsumer) -> float:
    """One step, a millisecond after whatever happened before."""
    tasks.clock.advance(milliseconds=1)
    return await one.step()


async def numbers(tasks: Tasks) -> list[int]:
    """The numbers of the messages that are events, in the order of the events."""
    query = select(tables.events.c.payload).where(tables.events.c.origin == "external").order_by(tables.events.c.id)
    found = await tasks.database.read(lambda connection, clock: list(connection.execute(query).scalars()))
    return [payload["number"] for payload in found]


async def consumed(one: StreamConsumer, tasks: Tasks, expected: list[int]) -> bool:
    """Whether, after one more step, just these messages are events."""
    await step(tasks, one)
    return await numbers(tasks) == expected
