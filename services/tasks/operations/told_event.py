"""Domain events of other contexts, as their outboxes bring them."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.outbox import Message, MessageRefused
from services.pipeline import definition
from services.tasks.models.event import MAX_DEPTH, MAX_PAYLOAD_BYTES
from services.tasks.models.topic import told_topic_fault
from services.tasks.store.domain_event import DomainEvent, publish_told

_DEEPEST = MAX_DEPTH + 1
"""No deeper one makes a run either, and a column has room for it."""


def take_events(connection: Connection, clock: Clock, source: str, messages: Sequence[Message]) -> None:
    """Publishes what some task or webhook waits for, as events of Baton itself. Raises MessageRefused."""
    publish_told(connection, {message.id: (_told(source, message), message.created_at) for message in messages})


def _told(source: str, message: Message) -> DomainEvent:
    match message.payload:
        case {"topic": str(topic), "payload": dict(payload), "depth": int(depth), "traceparent": str(traceparent)}:
            if fault := told_topic_fault(source, topic) or _payload_fault(payload):
                raise MessageRefused(message.id, fault)
            return DomainEvent(topic, payload, traceparent[:55], max(0, min(depth, _DEEPEST)))
    raise MessageRefused(message.id, "has not the fields topic, payload, depth and traceparent")


def _payload_fault(payload: dict[str, Any]) -> str:
    if definition.is_too_deep(payload):
        return f"is nested deeper than {definition.MAX_DEPTH} levels"
    if (size := len(orjson.dumps(payload))) > MAX_PAYLOAD_BYTES:
        return f"is {size} bytes as JSON, at most {MAX_PAYLOAD_BYTES} are allowed"
    return ""
