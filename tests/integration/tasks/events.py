"""Events as tests publish them, and tasks that wait for them."""

from typing import Any

from baton.tasks.v1 import event_pb2, task_pb2
from baton.tasks.v1 import event_service_pb2 as pb
from baton.tasks.v1.event_service_pb2_grpc import EventServiceStub
from baton.tasks.v1.run_service_pb2 import ListRunsRequest

from services.chassis.structs import to_struct
from tests.integration.tasks.running import Tasks

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
SCOPES = ("events:read", "events:publish")


def publisher(tasks: Tasks, *scopes: str, agent_id: str | None = None) -> EventServiceStub:
    """Somebody who publishes and reads events."""
    return EventServiceStub(tasks.channel([*SCOPES, *scopes], agent_id=agent_id))


async def waiting_for(tasks: Tasks, topic: str, **fields: Any) -> task_pb2.Task:
    """Creates a task that waits for a topic, or pattern."""
    return await tasks.create(schedule_kind=EVENT, schedule_expr=topic, **fields)


async def publish(tasks: Tasks, topic: str, payload: Any = None, **fields: Any) -> pb.PublishedEvent:
    """Publishes an event as somebody new; answers what it did."""
    request = pb.PublishEventRequest(topic=topic, payload=to_struct(payload or {}), **fields)
    return (await publisher(tasks).PublishEvent(request)).details


async def event_of(tasks: Tasks, event_id: str) -> pb.GetEventResponse:
    return await publisher(tasks).GetEvent(pb.GetEventRequest(event_id=event_id))


async def runs_of_event(tasks: Tasks, event_id: str) -> list[Any]:
    return list((await tasks.runs.ListRuns(ListRunsRequest(event_id=[event_id]))).items)


async def dispatch_all(tasks: Tasks) -> None:
    """Lets the dispatcher match whatever there is."""
    while (await tasks.database.read(_undispatched)) > 0:
        await tasks.service.dispatcher.step()


def _undispatched(connection: Any, clock: Any) -> int:
    from sqlalchemy import func, select

    from services.tasks.store.tables import events

    query = select(func.count()).select_from(events).where(events.c.dispatched_at.is_(None))
    found: int = connection.execute(query).scalar_one()
    return found
