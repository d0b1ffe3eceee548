"""What can be wrong with what is said of an agent. All faults of a request are named at once."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from services.chassis.egress import urls
from services.chassis.egress.errors import AddressRefused
from services.chassis.egress.guard import Guard
from services.chassis.errors import InvalidArgument, Violation
from services.sessions.operations.metadata_faults import metadata_faults
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
        *(_url_faults(webhook_url, guard) if webhook_url else ()),
        *(metadata_faults(metadata) if metadata else ()),
        *(_orchestrator_faults(connection, orchestrator_agent_id, agent_id) if orchestrator_agent_id else ()),
    ]
    if faults:
        raise InvalidArgument.of(faults)


def _url_faults(url: str, guard: Guard) -> list[Violation]:
    try:
        guard.check(urls.read(url))
    except AddressRefused as refusal:
        return [Violation("webhook_url", str(refusal))]
    return []


def _orchestrator_faults(connection: Connection, orchestrator_id: str, agent_id: str) -> list[Violation]:
    if orchestrator_id == agent_id:
        return [Violation("orchestrator_agent_id", "is the agent itself, which works for nobody")]
    found = store.find(connection, agent_id=orchestrator_id)
    if found is None or found.is_archived or not found.is_orchestrator:
        return [Violation("orchestrator_agent_id", _NOT_THE_ORCHESTRATOR)]
    return []
