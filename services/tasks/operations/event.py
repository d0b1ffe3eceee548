"""Publishing events, and publishing them anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import id_at
from services.pipeline import definition
from services.tasks.errors import EventNotFound, SourceNotCaller, TaskNotFound, TaskNotListening
from services.tasks.models.event import MAX_PAYLOAD_BYTES, Delivery, Event, NewEvent, Origin
from services.tasks.models.run import NewRun
from services.tasks.models.topic import topic_fault
from services.tasks.operations.depth import depth_of
from services.tasks.operations.dispatch import NewTrace, dispatch
from services.tasks.store import event as store
from services.tasks.store import tables
from services.tasks.store import task as task_store
from services.tasks.store import topic as topic_store
from services.tasks.store import webhook_delivery as webhook_store
from services.tasks.store.topic import Listener


@dataclass(frozen=True)
class Published:
    """A new event, and what it did."""

    event: Event
    deliveries: list[Delivery]
    runs: list[NewRun]

    @property
    def is_complete(self) -> bool:
        """Whether it was matched with all tasks."""
        return self.event.dispatched_at is not None


def publish_event(
    connection: Connection,
    new: NewEvent,
    caller: Caller,
    traceparent: str,
    new_trace: NewTrace,
    clock: Clock,
    *,
    request_id: str = "",
) -> Published:
    """Stores an event, and queues a run of each task that it is for; that goes to the audit.

    Raises InvalidArgument, SourceNotCaller or RunNotInProgress.
    """
    if new.source_agent_id not in ("", caller.agent_id) and not caller.holds("admin"):
        raise SourceNotCaller
    size = checked_size(new.topic, new.payload)
    now = clock.now()
    event = Event(
        id=id_at(now),
        topic=new.topic,
        payload=new.payload,
        payload_bytes=size,
        origin=Origin.EXTERNAL,
        source_agent_id=new.source_agent_id or caller.agent_id,
        published_by=caller.agent_id,
        depth=depth_of(connection, caller) or 0,
        traceparent=traceparent,
        replay_of=None,
        published_at=now,
    )
    listeners = topic_store.listeners(connection, event.topic)
    published = _publish(connection, event, listeners, new_trace, clock)
    audit_event(connection, "event.publish", published, caller, clock, request_id)
    return published


def replay_event(
    connection: Connection,
    event_id: str,
    task_id: str,
    caller: Caller,
    traceparent: str,
    new_trace: NewTrace,
    clock: Clock,
    *,
    request_id: str = "",
) -> Published:
    """Publishes an event anew, for the tasks as they are now, or for one; that goes to the audit.

    It is as deep as it was, so that no loop gets around its limit. Raises EventNotFound, TaskNotFound or
    TaskNotListening.
    """
    old = get_event(connection, event_id)
    now = clock.now()
    anew = replace(
        old,
        id=id_at(now),
        published_by=caller.agent_id,
        traceparent=traceparent,
        replay_of=old.id,
        published_at=now,
        dispatched_at=None,
        dispatched_to=None,
        matched_tasks=0,
        triggered_runs=0,
        source_key=None,
    )
    one = [_listener(connection, task_id, old.topic)] if task_id else topic_store.listeners(connection, old.topic)
    published = _publish(connection, anew, one, new_trace, clock, for_webhooks=not task_id)
    audit_event(connection, "event.replay", published, caller, clock, request_id)
    return published


def get_event(connection: Connection, event_id: str) -> Event:
    """One event. Raises EventNotFound."""
    event = store.get_event(connection, event_id)
    if event is None:
        raise EventNotFound(event_id)
    return event


def _publish(
    connection: Connection,
    event: Event,
    listeners: Sequence[Listener],
    new_trace: NewTrace,
    clock: Clock,
    *,
    for_webhooks: bool = True,
) -> Published:
    """Stores an event that has been matched with as many of the tasks as one transaction has room for.

    If that is all of them it is for the webhooks, too, unless it is for one task alone.
    """
    done = dispatch(connection, [event], {event.topic: listeners}, new_trace, clock.now())
    (event,) = done.events
    store.add_events(connection, [event])
    store.add_deliveries(connection, done.deliveries)
    if for_webhooks and event.dispatched_at is not None:
        webhook_store.add_deliveries(connection, [event], clock.now())
    return Published(event, done.deliveries, done.runs)


def _listener(connection: Connection, task_id: str, topic: str) -> Listener:
    task = task_store.get_task(connection, task_id)
    if task is None:
        raise TaskNotFound(task_id)
    if not task.waits_for(topic):
        raise TaskNotListening(task_id, topic)
    return Listener(task_id, task.schedule_expr)


def checked_size(topic: str, payload: Mapping[str, Any]) -> int:
    """The size of the payload in bytes of JSON. Raises InvalidArgument that names every fault."""
    faults = [Violation("topic", fault)] if (fault := topic_fault(topic)) else []
    size = 0
    if definition.is_too_deep(payload):
        faults.append(Violation("payload", f"is nested deeper than {definition.MAX_DEPTH} levels"))
    elif (size := len(orjson.dumps(payload))) > MAX_PAYLOAD_BYTES:
        description = f"is {size} bytes as JSON, at most {MAX_PAYLOAD_BYTES} are allowed"
        faults.append(Violation("payload", description))
    if faults:
        raise InvalidArgument.of(faults)
    return size


def audit_event(
    connection: Connection, action: str, published: Published, caller: Caller, clock: Clock, request_id: str = ""
) -> None:
    """Puts a new event into the audit."""
    event = published.event
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action=action,
        actor=caller.agent_id,
        resource=f"event/{event.id}",
        after={
            "topic": event.topic,
            "source_agent_id": event.source_agent_id,
            "payload_bytes": event.payload_bytes,
            "matched_tasks": event.matched_tasks,
            "triggered_runs": event.triggered_runs,
            "replay_of": event.replay_of,
        },
        request_id=request_id,
    )
