"""Agents, as rows."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select, type_coerce, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError

from services.chassis.any_case import in_any_case
from services.chassis.upsert import upsert
from services.sessions.models.agent import Agent, AgentFilter, AgentStatus, Holder
from services.sessions.models.usage import Amounts
from services.sessions.store.tables import agents

HOLDER = (agents.c.id, agents.c.scopes, agents.c.role, agents.c.archived_at)
"""What a holder is made of: prompts and metadata may be large, and are not read for every token."""
# Set when the agent is created, or by statements of their own.
_KEPT = ("id", "created_at", "is_orchestrator", "input_tokens", "output_tokens", "cost_microusd")
_USED = ("input_tokens", "output_tokens", "cost_microusd")


def insert_unless_taken(connection: Connection, agent: Agent) -> bool:
    """Stores the agent and says so, unless another one has its name, or is the orchestrator that it would be.

    Of several at once, one is stored.
    """
    row = upsert(connection, agents).values(asdict(agent)).on_conflict_do_nothing()
    return connection.execute(row.returning(agents.c.id)).one_or_none() is not None


def find(connection: Connection, *, agent_id: str) -> Agent | None:
    return _one(connection, select(agents).where(agents.c.id == agent_id))


def archived(connection: Connection, agent_ids: Collection[str]) -> dict[str, bool]:
    """Of those of the agents that there are, whether each is archived."""
    query = select(agents.c.id, agents.c.archived_at.is_not(None).label("is_archived"))
    query = query.where(agents.c.id.in_(agent_ids))
    return {row.id: row.is_archived for row in connection.execute(query)}


def find_named(connection: Connection, *, name: str) -> Agent | None:
    """The agent of that name that is not archived."""
    return _one(connection, select(agents).where(agents.c.name == name, agents.c.archived_at.is_(None)))


def find_orchestrator(connection: Connection) -> Agent | None:
    """The orchestrator that is not archived."""
    return _one(connection, select(agents).where(agents.c.is_orchestrator, agents.c.archived_at.is_(None)))


def lock(connection: Connection, *, agent_id: str) -> Agent | None:
    """An agent that nobody else changes before this transaction ends."""
    return _one(connection, select(agents).where(agents.c.id == agent_id).with_for_update())


def save(connection: Connection, agent: Agent) -> bool:
    """Stores what has been changed of an agent that is locked, unless another one has its new name; says whether."""
    values = {name: value for name, value in asdict(agent).items() if name not in _KEPT}
    try:
        with connection.begin_nested():
            connection.execute(update(agents).where(agents.c.id == agent.id).values(values))
    except IntegrityError:
        # The name is all that can be taken: what the agent points at was looked up, and agents are never deleted.
        return False
    return True


def add_usage(connection: Connection, *, agent_id: str, used: Amounts, now: datetime) -> None:
    """Adds to what an agent has used, in one statement, so that nothing is lost."""
    added = {name: agents.c[name] + getattr(used, name) for name in _USED}
    connection.execute(update(agents).where(agents.c.id == agent_id).values(**added, updated_at=now))


def list_agents(
    connection: Connection, wanted: AgentFilter, *, limit: int, before_id: str | None = None, offset: int = 0
) -> list[Agent]:
    """Up to `limit` agents, newest first, with smaller ids than `before_id`, the first `offset` passed over."""
    query = select(agents).order_by(agents.c.id.desc()).limit(limit)
    if not wanted.include_archived:
        query = query.where(agents.c.archived_at.is_(None))
    if wanted.name:
        query = query.where(agents.c.name.regexp_match(in_any_case(wanted.name)))
    if wanted.scope:
        query = query.where(_has_scope(connection, wanted.scope))
    if before_id is not None:
        query = query.where(agents.c.id < before_id)
    if offset:
        query = query.offset(offset)
    return [agent_of(row._asdict()) for row in connection.execute(query)]


def agent_of(fields: dict[str, Any]) -> Agent:
    """The agent that a whole row is."""
    return Agent(**{**fields, "scopes": tuple(fields["scopes"]), "status": AgentStatus(fields["status"])})


def holder_of(fields: dict[str, Any]) -> Holder:
    """The holder that a row of HOLDER is."""
    return Holder(**{**fields, "scopes": tuple(fields["scopes"])})


def _has_scope(connection: Connection, scope: str) -> ColumnElement[bool]:
    if connection.dialect.name == "postgresql":
        return type_coerce(agents.c.scopes, JSONB).contains([scope])
    held = func.json_each(agents.c.scopes).table_valued("value")
    return select(held.c.value).where(held.c.value == scope).exists()


def _one(connection: Connection, query: Select[Any]) -> Agent | None:
    return _agent(connection.execute(query).one_or_none())


def _agent(row: Row[Any] | None) -> Agent | None:
    return None if row is None else agent_of(row._asdict())
