"""The chat, as rows."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select

from services.sessions.models.chat import ChatFilter, ChatMessage, ChatParty
from services.sessions.store.order import first_rows
from services.sessions.store.positions import span
from services.sessions.store.tables import chat_messages


def add(connection: Connection, message: ChatMessage) -> None:
    connection.execute(insert(chat_messages).values(asdict(message)))


def list_messages(
    connection: Connection, wanted: ChatFilter, *, limit: int, before: int | None = None
) -> list[ChatMessage]:
    """Up to `limit` messages, newest first, at lower positions than `before`."""
    columns = chat_messages.c
    conditions = list(_conditions(wanted))
    query = select(chat_messages).where(*conditions)
    query = query.where(*span(connection, chat_messages, columns.created_at, wanted.since, wanted.until))
    if before is not None:
        query = query.where(columns.position < before)
    order = ("position", "created_at") if conditions else ("position",)
    return [_message(row) for row in first_rows(connection, [query], order, limit)]


def count(connection: Connection, orchestrator_id: str, *, at_most: int) -> int:
    """How many messages an orchestrator's chat has, or `at_most` when there are more."""
    some = select(chat_messages.c.position).where(chat_messages.c.orchestrator_agent_id == orchestrator_id)
    counted = select(func.count()).select_from(some.limit(at_most).subquery())
    return int(connection.execute(counted).scalar_one())


def at(connection: Connection, positions: Sequence[int]) -> list[ChatMessage]:
    """The messages at some positions of the feed."""
    if not positions:
        return []
    query = select(chat_messages).where(chat_messages.c.position.in_(positions))
    return [_message(row) for row in connection.execute(query)]


def _conditions(wanted: ChatFilter) -> Iterator[ColumnElement[bool]]:
    for name in ("orchestrator_agent_id", "agent_id", "sender_type", "receiver_type"):
        if value := getattr(wanted, name):
            yield chat_messages.c[name] == value


def _message(row: Row[Any]) -> ChatMessage:
    fields = row._asdict()
    sides = {name: ChatParty(fields[name]) for name in ("sender_type", "receiver_type")}
    return ChatMessage(**fields | sides)
