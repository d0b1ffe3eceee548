"""What can be wrong with what is said of a session."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from services.chassis.errors import InvalidArgument, Violation
from services.chassis.json_limits import metadata_faults
from services.sessions.store import agent as agent_store


def check(connection: Connection, *, metadata: Mapping[str, Any], agent_id: str = "") -> None:
    """Raises InvalidArgument that names every fault of what is given."""
    if faults := [*metadata_faults(metadata), *(_agent_faults(connection, agent_id) if agent_id else ())]:
        raise InvalidArgument.of(faults)


def _agent_faults(connection: Connection, agent_id: str) -> list[Violation]:
    agent = agent_store.find(connection, agent_id=agent_id)
    if agent is not None and not agent.is_archived:
        return []
    description = f"is {agent_id!r}, which is no agent, or an archived one: use one that GET /agents lists"
    return [Violation("agent_id", description)]
