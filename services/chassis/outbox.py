"""What others must hear of: rows written in the transaction of the change itself, and delivered later.

Nothing that is in the outbox is lost, and nothing that was rolled back is in it.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Column, Connection, MetaData, String, Table, delete, insert, select

from services.chassis import call, telemetry
from services.chassis.clock import Clock
from services.chassis.columns import Id, Json, Timestamp
from services.chassis.ids import new_id

AUDIT = "audit"
"""The topic of what is audited: who did what to what."""
_written: ContextVar[list[str] | None] = ContextVar("baton_audit_written", default=None)
MAX_AUDITED_BYTES = 16 * 1024
AGENT_WEBHOOK = "agent_webhook"
"""The topic of where agents are told of their runs."""
USAGE = "usage"
"""The topic of what runs have used."""
BUDGET = "budget"
"""The topic of who has used up what they may."""
HANDOFF = "handoff"
"""The topic of work that workflows hand to a role, or take back."""
REPORT = "report"
"""The topic of what came of that work."""
EVENT = "event"
"""The topic of domain events: what happened, for tasks and webhooks that wait to hear of it."""


@dataclass(frozen=True)
class Message:
    """Something that others must hear of."""

    id: str
    topic: str
    payload: dict[str, Any]
    created_at: datetime


Take = Callable[[Connection, Clock, str, Sequence[Message]], None]
"""Takes messages of one topic, from the context that is named, in the current transaction; those that it has taken
before it passes over. Raises MessageRefused."""


class MessageRefused(Exception):
    """A message that cannot be taken, and why."""

    def __init__(self, message_id: str, description: str) -> None:
        super().__init__(description)
        self.message_id = message_id


def outbox_table(metadata: MetaData) -> Table:
    """The table that a context keeps its messages in; their ids are their order."""
    return Table(
        "outbox",
        metadata,
        Column("id", Id, primary_key=True),
        Column("topic", String(100), nullable=False),
        Column("payload", Json, nullable=False),
        Column("created_at", Timestamp, nullable=False),
    )


def publish(connection: Connection, outbox: Table, topic: str, payload: dict[str, Any], clock: Clock) -> str:
    """Adds a message to the current transaction; answers its id."""
    (message_id,) = publish_all(connection, outbox, topic, [payload], clock)
    return message_id


def publish_all(
    connection: Connection, outbox: Table, topic: str, payloads: Sequence[dict[str, Any]], clock: Clock
) -> list[str]:
    """Adds messages to the current transaction; answers their ids."""
    now, ids = clock.now(), [new_id() for _ in payloads]
    if ids:
        common = {"topic": topic, "created_at": now}
        rows = [common | {"id": one, "payload": payload} for one, payload in zip(ids, payloads, strict=True)]
        connection.execute(insert(outbox), rows)
    return ids


@contextmanager
def watched() -> Iterator[list[str]]:
    """The ids of the audit entries that are published while the block lasts."""
    written: list[str] = []
    token = _written.set(written)
    try:
        yield written
    finally:
        _written.reset(token)


def oldest(connection: Connection, outbox: Table, topic: str, limit: int) -> list[Message]:
    """The messages of a topic that are there longest, in their order."""
    query = select(outbox).where(outbox.c.topic == topic).order_by(outbox.c.id).limit(limit)
    return [Message(row.id, row.topic, row.payload, row.created_at) for row in connection.execute(query)]


def forget(connection: Connection, outbox: Table, ids: Collection[str]) -> None:
    """Removes messages that have been delivered."""
    connection.execute(delete(outbox).where(outbox.c.id.in_(ids)))


def event(
    connection: Connection, outbox: Table, clock: Clock, *, topic: str, payload: dict[str, Any], depth: int = 0
) -> None:
    """Publishes in the current transaction, and trace, a domain event of a context other than tasks.

    `topic` is noun and participle (`session.expired`), `payload` at most 256 KiB of JSON without secrets, `depth` how
    many events and runs led to it.
    """
    told = {"topic": topic, "payload": payload, "depth": depth, "traceparent": telemetry.traceparent()}
    publish(connection, outbox, EVENT, told, clock)


def audit(
    connection: Connection,
    outbox: Table,
    clock: Clock,
    *,
    action: str,
    actor: str,
    resource: str,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    note: str = "",
    request_id: str = "",
    trace_id: str = "",
) -> str:
    """Publishes in the current transaction that an agent did something; answers the id of the entry to come.

    `action` is noun and verb (`run.approve`), `actor` an agent's id, `resource` a noun and an id (`run/0192...`).
    `before` and `after` are the values that changed, as JSON has them: with more than 16 KiB only their digest is kept.
    `note` is the actor's reason, `request_id` the key that the request was repeatable by. `trace_id` is
    the current trace unless it is given.
    """
    serving = call.current.get()
    caller = serving.caller if serving else None
    told = entry(
        action=action,
        actor=actor,
        resource=resource,
        before=before,
        after=after,
        note=note,
        request_id=request_id,
        trace_id=trace_id or telemetry.trace_id(),
        run_id=caller.run_id if caller else "",
    )
    message_id = publish(connection, outbox, AUDIT, told, clock)
    if (written := _written.get()) is not None:
        written.append(message_id)
    return message_id


def entry(
    *,
    action: str,
    actor: str,
    resource: str,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    note: str = "",
    request_id: str = "",
    trace_id: str = "",
    run_id: str = "",
) -> dict[str, Any]:
    """What a message of the topic AUDIT holds."""
    return {
        "action": action,
        "actor": actor,
        "resource": resource,
        **_values("before", before),
        **_values("after", after),
        "note": note,
        "request_id": request_id,
        "trace_id": trace_id,
        "run_id": run_id,
    }


def _values(name: str, values: dict[str, Any] | None) -> dict[str, Any]:
    if values is None:
        return {name: None, f"{name}_digest": ""}
    encoded = orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
    kept = values if len(encoded) <= MAX_AUDITED_BYTES else None
    return {name: kept, f"{name}_digest": hashlib.sha256(encoded).hexdigest()}
