"""Events as tests publish them, and tasks that wait for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from baton.tasks.v1 import event_pb2, run_pb2, task_pb2
from baton.tasks.v1 import event_service_pb2 as pb
from baton.tasks.v1.event_service_pb2_grpc import EventServiceStub
from baton.tasks.v1.run_service_pb2 import ListRunsRequest
from sqlalchemy import Connection, func, select

from services.chassis.clock import Clock
from services.chassis.structs import to_struct
from services.tasks import dispatcher
from services.tasks.models.task import ScheduleKind
from services.tasks.store import tables
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.schedules import add_tasks
from tests.integration.tasks.work import PROMPTLY

EVENT = task_pb2.SCHEDULE_KIND_EVENT
RAN, FILTERED, FILTER_ERROR, SUPPRESSED, SKIPPED, PAUSED, TOO_DEEP = (
    event_pb2.DELIVERY_OUTCOME_RAN,
    event_pb2.DELIVERY_OUTCOME_FILTERED,
    event_pb2.DELIVERY_OUTCOME_FILTER_ERROR,
    event_pb2.DELIVERY_OUTCOME_SUPPRESSED_DUPLICATE,
    event_pb2.DELIVERY_OUTCOME_SKIPPED_OVERLAP,
    event_pb2.DELIVERY_OUTCOME_PAUSED,
    event_pb2.DELIVERY_OUTCOME_DEPTH_EXCEEDED,
)
NO_TASK = "no active event task has a matching topic"


def publisher(tasks: Tasks, *scopes: str, agent_id: str | None = None) -> EventServiceStub:
    """Somebody who publishes and reads events."""
    return EventServiceStub(tasks.channel(["events:read", "events:publish", *scopes], agent_id=agent_id))


async def waiting_for(tasks: Tasks, topic: str, **fields: Any) -> task_pb2.Task:
    """Creates a task that waits for a topic, or a pattern."""
    return await tasks.create(schedule_kind=EVENT, schedule_expr=topic, **fields)


def event_request(topic: str = "order.created", payload: Any = None, **fields: Any) -> pb.PublishEventRequest:
    return pb.PublishEventRequest(topic=topic, payload=to_struct({} if payload is None else payload), **fields)


async def publish(tasks: Tasks, topic: str = "order.created", payload: Any = None, **fields: Any) -> pb.PublishedEvent:
    """Publishes an event, a millisecond after whatever happened before; answers what it did."""
    tasks.clock.advance(milliseconds=1)
    return (await publisher(tasks).PublishEvent(event_request(topic, payload, **fields))).details


async def replay(tasks: Tasks, event_id: str, task_id: str = "") -> pb.PublishedEvent:
    """Publishes an event anew; answers what that did."""
    tasks.clock.advance(milliseconds=1)
    request = pb.ReplayEventRequest(event_id=event_id, task_id=task_id)
    return (await publisher(tasks).ReplayEvent(request)).details


async def event_of(tasks: Tasks, event_id: str) -> pb.GetEventResponse:
    return await publisher(tasks).GetEvent(pb.GetEventRequest(event_id=event_id))


async def events_of(tasks: Tasks, **filters: Any) -> list[event_pb2.Event]:
    """The events that pass a filter, oldest first."""
    return list((await publisher(tasks).ListEvents(pb.ListEventsRequest(limit=200, **filters))).items)[::-1]


async def runs_of_event(tasks: Tasks, event_id: str) -> list[run_pb2.Run]:
    return list((await tasks.runs.ListRuns(ListRunsRequest(event_id=[event_id], limit=200))).items)


async def outcomes_of(tasks: Tasks, task_id: str) -> list[Any]:
    """What events did to a task, oldest first."""
    query = select(tables.event_deliveries.c.outcome).where(tables.event_deliveries.c.task_id == task_id)
    ordered = query.order_by(tables.event_deliveries.c.event_id)
    return await tasks.database.read(lambda connection, clock: list(connection.execute(ordered).scalars()))


async def dispatch_all(tasks: Tasks) -> None:
    """Lets the dispatcher match whatever there is."""
    while await tasks.database.read(count_undispatched):
        await tasks.service.dispatcher.step()


@asynccontextmanager
async def hint_for_the_dispatcher(tasks: Tasks) -> AsyncIterator[None]:
    """A time in which the dispatcher is told that there is something to do, and not only looks by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher, "_POLL_SECONDS", 60.0)
        waiting = asyncio.create_task(tasks.service.dispatcher.step())
        # It has looked and found nothing.
        _, pending = await asyncio.wait([waiting], timeout=0.2)
        assert pending
        yield
        await asyncio.wait_for(waiting, PROMPTLY)


def add_waiting(connection: Connection, count: int, topic: str, **fields: Any) -> None:
    """Adds many tasks that wait for a topic, or pattern, straight through the store."""
    no_times = {"schedule_kind": ScheduleKind.EVENT, "next_fire_at": None, "next_scheduled_for": None}
    add_tasks(connection, count, topic, datetime.now(UTC), **no_times | fields)


def count_undispatched(connection: Connection, clock: Clock) -> int:
    """How many events are still to be matched."""
    query = select(func.count()).select_from(tables.events).where(tables.events.c.dispatched_at.is_(None))
    found: int = connection.execute(query).scalar_one()
    return found
