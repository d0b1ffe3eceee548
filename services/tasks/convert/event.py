"""Events, and what they did."""

from baton.tasks.v1 import event_pb2, event_service_pb2

from services.chassis.ids import stored_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.tasks.convert.enums import from_enum, to_enum
from services.tasks.models.event import Delivery, DeliveryOutcome, Event, EventFilter, NewEvent
from services.tasks.operations.event import Published
from services.tasks.store.topic import SeenTopic, Topic

_TASK_IDS = 1000


def new_event(request: event_service_pb2.PublishEventRequest) -> NewEvent:
    """What the caller wants to publish."""
    return NewEvent(request.topic, from_struct(request.payload), stored_id(request.source_agent_id))


def delivery_outcome(request: event_service_pb2.ListEventDeliveriesRequest) -> DeliveryOutcome | None:
    """Which deliveries the caller wants to see; None for all."""
    if not request.HasField("outcome"):
        return None
    return from_enum(DeliveryOutcome, event_pb2.DeliveryOutcome, request.outcome)


def event_filter(request: event_service_pb2.ListEventsRequest) -> EventFilter:
    """Which events the caller wants to see."""
    return EventFilter(
        topic=request.topic,
        since=from_timestamp(request.since) if request.HasField("since") else None,
        until=from_timestamp(request.until) if request.HasField("until") else None,
        matched=request.matched if request.HasField("matched") else None,
    )


def event_message(event: Event, *, with_payload: bool = False) -> event_pb2.Event:
    """An event as it is answered."""
    return event_pb2.Event(
        id=event.id,
        topic=event.topic,
        payload=to_struct(event.payload) if with_payload else None,
        origin=to_enum(event.origin, event_pb2.EventOrigin),
        source_agent_id=event.source_agent_id or "",
        published_by=event.published_by or "",
        published_at=to_timestamp(event.published_at),
        depth=event.depth,
        replay_of=event.replay_of,
        dispatched_at=to_timestamp(event.dispatched_at),
        matched_tasks=event.matched_tasks,
        triggered_runs=event.triggered_runs,
        reason=event.reason,
        payload_bytes=event.payload_bytes,
        trace_id=event.trace_id,
    )


def delivery_message(delivery: Delivery) -> event_pb2.EventDelivery:
    """What an event did to a task, as it is answered."""
    return event_pb2.EventDelivery(
        event_id=delivery.event_id,
        task_id=delivery.task_id,
        outcome=to_enum(delivery.outcome, event_pb2.DeliveryOutcome),
        reason=delivery.reason,
        run_id=delivery.run_id or "",
        decided_at=to_timestamp(delivery.decided_at),
    )


def published_message(published: Published) -> event_service_pb2.PublishedEvent:
    """What a new event did."""
    event = published.event
    ran = [delivery for delivery in published.deliveries if delivery.outcome is DeliveryOutcome.RAN]
    return event_service_pb2.PublishedEvent(
        event_id=event.id,
        stream_id=event.id,
        topic=event.topic,
        triggered_tasks=[delivery.task_id for delivery in ran],
        published_at=to_timestamp(event.published_at),
        deliveries=[delivery_message(delivery) for delivery in published.deliveries],
        reason=event.reason,
        complete=published.is_complete,
        replay_of=event.replay_of,
    )


def told(published: Published) -> str:
    """What happened, for people."""
    event, runs = published.event, len(published.runs)
    queued = f"{runs} {'run is' if runs == 1 else 'runs are'} queued" if runs else f"no run is queued: {event.reason}"
    more = "" if published.is_complete else "; it is still being matched with more tasks"
    return f"event {event.id} is published to {event.topic!r}: {queued}{more}"


def recent_message(event: Event) -> event_service_pb2.RecentEvent:
    """An event as earlier clients read it."""
    return event_service_pb2.RecentEvent(
        event_id=event.id,
        stream_id=event.id,
        topic=event.topic,
        payload=to_struct(event.payload),
        source_agent_id=event.source_agent_id or "",
        published_by=event.published_by or "",
        published_at=to_timestamp(event.published_at),
    )


def topic_message(topic: Topic) -> event_service_pb2.EventTopic:
    """A topic that tasks wait for."""
    return event_service_pb2.EventTopic(
        topic=topic.pattern, active_tasks=len(topic.task_ids), task_ids=topic.task_ids[:_TASK_IDS]
    )


def seen_message(seen: SeenTopic) -> event_service_pb2.SeenTopic:
    """A topic that events had lately."""
    return event_service_pb2.SeenTopic(
        topic=seen.topic,
        events=seen.events,
        last_event_id=seen.last_event_id,
        last_published_at=to_timestamp(seen.last_published_at),
    )
