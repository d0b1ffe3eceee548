"""The secrets of agents, as rows."""

from datetime import datetime

from sqlalchemy import Connection, delete, select

from services.chassis.upsert import upsert
from services.sessions.models.agent import Holder
from services.sessions.store.agent import HOLDER, holder_of
from services.sessions.store.tables import agent_secrets, agents


def put_secret(connection: Connection, *, agent_id: str, secret_hash: bytes, created_by: str, now: datetime) -> None:
    """Stores an agent's secret in the place of the one before."""
    values = {"secret_hash": secret_hash, "created_by": created_by, "created_at": now}
    row = upsert(connection, agent_secrets).values(agent_id=agent_id, **values)
    connection.execute(row.on_conflict_do_update(index_elements=[agent_secrets.c.agent_id], set_=values))


def drop_secret(connection: Connection, *, agent_id: str) -> None:
    """An agent's secret is known no more."""
    connection.execute(delete(agent_secrets).where(agent_secrets.c.agent_id == agent_id))


def find_secret(connection: Connection, *, agent_id: str) -> tuple[bytes, Holder] | None:
    """The hash of an agent's secret, and the agent; None when it has none, or there is no such agent."""
    query = (
        select(agent_secrets.c.secret_hash, *HOLDER)
        .join_from(agent_secrets, agents, agent_secrets.c.agent_id == agents.c.id)
        .where(agent_secrets.c.agent_id == agent_id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    fields = row._asdict()
    return fields.pop("secret_hash"), holder_of(fields)
