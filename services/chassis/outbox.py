"""What others must hear of: rows written in the transaction of the change itself, and delivered later.

Nothing that is in the outbox is lost, and nothing that was rolled back is in it.
"""

from typing import Any

from sqlalchemy import Column, Connection, MetaData, String, Table, insert

from services.chassis import telemetry
from services.chassis.clock import Clock
from services.chassis.columns import Id, Json, Timestamp
from services.chassis.ids import new_id

AUDIT = "audit"
"""The topic of what is audited: who did what to what."""
EVENT = "event"
"""The topic of domain events: what happened, for tasks and webhooks that wait to hear of it."""


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


def publish(connection: Connection, outbox: Table, topic: str, payload: dict[str, Any], clock: Clock) -> None:
    """Adds a message to the current transaction."""
    connection.execute(insert(outbox).values(id=new_id(), topic=topic, payload=payload, created_at=clock.now()))


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
) -> None:
    """Publishes in the current transaction, and trace, that an agent did something.

    `action` is noun and verb (`run.approve`), `actor` an agent's id, `resource` a noun and an id (`run/0192...`).
    `before` and `after` are the values that changed, as JSON has them; `note` is the actor's reason, `request_id` the
    key that the request was repeatable by.
    """
    entry = {
        "action": action,
        "actor": actor,
        "resource": resource,
        "before": before,
        "after": after,
        "note": note,
        "request_id": request_id,
        "trace_id": telemetry.trace_id(),
    }
    publish(connection, outbox, AUDIT, entry, clock)
