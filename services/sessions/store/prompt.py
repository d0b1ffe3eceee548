"""Prompts, as rows."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select

from services.sessions.models.prompt import Prompt, PromptAuthor, PromptFilter
from services.sessions.store.tables import prompts


def add(connection: Connection, prompt: Prompt) -> None:
    connection.execute(insert(prompts).values(asdict(prompt)))


def find(connection: Connection, *, prompt_id: str) -> Prompt | None:
    row = connection.execute(select(prompts).where(prompts.c.id == prompt_id)).one_or_none()
    return None if row is None else _prompt(row)


def list_prompts(
    connection: Connection, wanted: PromptFilter, *, limit: int, before_id: str | None = None
) -> list[Prompt]:
    """Up to `limit` prompts, newest first, with smaller ids than `before_id`."""
    query = select(prompts).where(*_conditions(wanted))
    if before_id is not None:
        query = query.where(prompts.c.id < before_id)
    return [_prompt(row) for row in connection.execute(query.order_by(prompts.c.id.desc()).limit(limit))]


def delete_oldest(connection: Connection, *, before: datetime, limit: int) -> int:
    """Deletes up to `limit` prompts that were recorded before then; answers how many."""
    old = select(prompts.c.id).where(prompts.c.timestamp < before).order_by(prompts.c.timestamp).limit(limit)
    return connection.execute(delete(prompts).where(prompts.c.id.in_(old))).rowcount


def _conditions(wanted: PromptFilter) -> Iterator[ColumnElement[bool]]:
    columns = prompts.c
    for name in ("agent_id", "author", "task_slug", "session_id"):
        if value := getattr(wanted, name):
            yield columns[name] == value
    if wanted.since is not None:
        yield columns.timestamp >= wanted.since
    if wanted.until is not None:
        yield columns.timestamp < wanted.until


def _prompt(row: Row[Any]) -> Prompt:
    fields = row._asdict()
    return Prompt(**fields | {"author": PromptAuthor(fields["author"])})
