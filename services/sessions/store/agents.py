"""Rows of `agents`."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, update

from services.chassis.upsert import upsert
from services.sessions.models import Agent
from services.sessions.store.tables import agents


def insert_unless_named(connection: Connection, agent: Agent) -> bool:
    """Stores the agent and says so, unless another one has its name. Of several at once, one is stored."""
    row = upsert(connection, agents).values(asdict(agent))
    unless_named = row.on_conflict_do_nothing(index_elements=[agents.c.name])
    return connection.execute(unless_named.returning(agents.c.id)).one_or_none() is not None


def find(connection: Connection, *, agent_id: str) -> Agent | None:
    return _agent(connection.execute(select(agents).where(agents.c.id == agent_id)).one_or_none())


def find_named(connection: Connection, *, name: str) -> Agent | None:
    return _agent(connection.execute(select(agents).where(agents.c.name == name)).one_or_none())


def set_scopes(connection: Connection, *, agent_id: str, scopes: tuple[str, ...], updated_at: datetime) -> None:
    values = {"scopes": scopes, "updated_at": updated_at}
    connection.execute(update(agents).where(agents.c.id == agent_id).values(values))


def _agent(row: Row[Any] | None) -> Agent | None:
    if row is None:
        return None
    fields = row._asdict()
    return Agent(**{**fields, "scopes": tuple(fields["scopes"])})
