"""Publishing what a stream brings: many messages at once, each of them once."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.ids import id_at
from services.tasks.models.event import Event, Incoming, Origin
from services.tasks.operations.dispatch import Dispatched, NewTrace, dispatch
from services.tasks.operations.event import Published, audit_event
from services.tasks.store import event as store
from services.tasks.store import topic as topic_store

_MICROSECOND = timedelta(microseconds=1)
NewMessageTrace = Callable[[str], str]
"""Begins the trace of a message, known by its key, and answers its traceparent."""


def publish_incoming(
    connection: Connection,
    incoming: Sequence[Incoming],
    publisher: Caller,
    new_message_trace: NewMessageTrace,
    new_trace: NewTrace,
    clock: Clock,
) -> list[Published]:
    """Publishes those messages, all of them fit for it, of which there are no events yet, in their order.

    As with single events, that queues runs and goes to the audit. When another transaction makes events of the same
    messages at the same time, one of the two fails, and finds them published when it is tried again.
    """
    now = clock.now()
    known = store.known_source_keys(connection, [message.source_key for message in incoming])
    unique: dict[str, Incoming] = {}
    for message in incoming:
        if message.source_key not in known:
            unique.setdefault(message.source_key, message)
    # Ids are in the order of their instants: the messages of a batch get one each, up to now.
    events = [
        _event(message, publisher, new_message_trace, now - left * _MICROSECOND)
        for left, message in zip(range(len(unique) - 1, -1, -1), unique.values(), strict=True)
    ]
    waiting = {topic: topic_store.listeners(connection, topic) for topic in {event.topic for event in events}}
    done = dispatch(connection, events, waiting, new_trace, now)
    advanced = {event.id: event for event in done.events}
    stored = [advanced.get(event.id, event) for event in events]
    store.add_events(connection, stored)
    store.add_deliveries(connection, done.deliveries)
    published = _of_each(stored, done)
    for one in published:
        audit_event(connection, "event.publish", one, publisher, clock)
    return published


def _event(incoming: Incoming, publisher: Caller, new_message_trace: NewMessageTrace, instant: datetime) -> Event:
    return Event(
        id=id_at(instant),
        topic=incoming.topic,
        payload=incoming.payload,
        payload_bytes=incoming.payload_bytes,
        origin=Origin.EXTERNAL,
        source_agent_id=publisher.agent_id,
        published_by=publisher.agent_id,
        depth=0,
        traceparent=new_message_trace(incoming.source_key),
        replay_of=None,
        published_at=instant,
        source_key=incoming.source_key,
    )


def _of_each(events: Sequence[Event], done: Dispatched) -> list[Published]:
    each = {event.id: Published(event, [], []) for event in events}
    for delivery in done.deliveries:
        each[delivery.event_id].deliveries.append(delivery)
    for run in done.runs:
        if run.event_id is not None:
            each[run.event_id].runs.append(run)
    return list(each.values())
