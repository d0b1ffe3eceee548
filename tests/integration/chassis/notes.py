"""A table for rules to work on."""

from datetime import datetime

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, insert, select, update

from services.chassis.answers import idempotency_table
from services.chassis.clock import Clock
from services.chassis.columns import Id, Json, Timestamp
from services.chassis.outbox import outbox_table

metadata = MetaData()
table = Table(
    "notes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("text", String(20), nullable=False),
    Column("at", Timestamp),
    Column("extra", Json),
    Column("code", Id),
)
idempotency_keys = idempotency_table(metadata)
outbox = outbox_table(metadata)


def write(connection: Connection, number: int, text: str = "", at: datetime | None = None) -> None:
    connection.execute(insert(table).values(id=number, text=text, at=at))


def rewrite(connection: Connection, number: int, text: str) -> None:
    connection.execute(update(table).where(table.c.id == number).values(text=text))


def read(connection: Connection, clock: Clock) -> dict[int, str]:
    """All notes, by their number."""
    rows = connection.execute(select(table.c.id, table.c.text).order_by(table.c.id))
    return {row.id: row.text for row in rows}
