"""What can be wrong with what is said of an agent. All faults of a request are named at once."""

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis.egress import urls
from services.chassis.egress.errors import AddressRefused
from services.chassis.egress.guard import Guard
from services.chassis.errors import InvalidArgument, Violation
from services.sessions.store import agent as store

MAX_METADATA_BYTES = 16 * 1024
MAX_METADATA_DEPTH = 20
"""So that a list of agents can be read by everybody: protobuf reads no more than 100 messages inside one another."""
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
        *(_metadata_faults(metadata) if metadata else ()),
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


def _metadata_faults(metadata: Mapping[str, Any]) -> list[Violation]:
    if _is_deeper(metadata, MAX_METADATA_DEPTH):
        return [Violation("metadata", f"is nested deeper than {MAX_METADATA_DEPTH} levels")]
    size = len(orjson.dumps(metadata))
    if size <= MAX_METADATA_BYTES:
        return []
    return [Violation("metadata", f"would be {size} bytes as JSON, at most {MAX_METADATA_BYTES} are allowed")]


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists are inside one another more than so many times."""
    if not isinstance(value, Mapping | list):
        return False
    inner = value.values() if isinstance(value, Mapping) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)


def _orchestrator_faults(connection: Connection, orchestrator_id: str, agent_id: str) -> list[Violation]:
    if orchestrator_id == agent_id:
        return [Violation("orchestrator_agent_id", "is the agent itself, which works for nobody")]
    found = store.find(connection, agent_id=orchestrator_id)
    if found is None or found.is_archived or not found.is_orchestrator:
        return [Violation("orchestrator_agent_id", _NOT_THE_ORCHESTRATOR)]
    return []
