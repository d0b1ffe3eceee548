"""What can be wrong with what is said of an agent. All faults of a request are named at once."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from services.chassis.egress.guard import Guard
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.json_limits import metadata_faults
from services.sessions.store import agent as store

_NOT_THE_ORCHESTRATOR = "is not the orchestrator, or is archived: use the id that GET /orchestrator answers"


def check(
    connection: Connection,
    guard: Guard,
    *,
    webhook_url: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    orchestrator_agent_id: str | None = None,
    agent_id: str = "",
) -> None:
    """Raises InvalidArgument that names every fault of what is given."""
    faults = [
        *_webhook_faults(webhook_url, guard),
        *(metadata_faults(metadata) if metadata else ()),
        *(_orchestrator_faults(connection, orchestrator_agent_id, agent_id) if orchestrator_agent_id else ()),
    ]
    if faults:
        raise InvalidArgument.of(faults)


def _webhook_faults(webhook_url: str | None, guard: Guard) -> list[Violation]:
    fault = guard.fault(webhook_url) if webhook_url else ""
    return [Violation("webhook_url", fault)] if fault else []


def _orchestrator_faults(connection: Connection, orchestrator_id: str, agent_id: str) -> list[Violation]:
    if orchestrator_id == agent_id:
        return [Violation("orchestrator_agent_id", "is the agent itself, which works for nobody")]
    found = store.find(connection, agent_id=orchestrator_id)
    if found is None or found.is_archived or not found.is_orchestrator:
        return [Violation("orchestrator_agent_id", _NOT_THE_ORCHESTRATOR)]
    return []
