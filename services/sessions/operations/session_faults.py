"""What can be wrong with what is said of a session."""

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis.errors import InvalidArgument, Violation
from services.sessions.store import agent as agent_store

MAX_METADATA_BYTES = 16 * 1024
MAX_METADATA_DEPTH = 20
"""So that a list of sessions can be read by everybody: protobuf reads no more than 100 messages inside one another."""


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raises InvalidArgument for metadata that is too large, or nested too deeply."""
    if fault := _metadata_fault(metadata):
        raise InvalidArgument.of([Violation("metadata", fault)])


def check_agent(connection: Connection, agent_id: str) -> None:
    """Raises InvalidArgument unless there is such an agent, which is not archived."""
    agent = agent_store.find(connection, agent_id=agent_id)
    if agent is None or agent.is_archived:
        description = f"is {agent_id!r}, which is no agent, or an archived one: use one that GET /agents lists"
        raise InvalidArgument.of([Violation("agent_id", description)])


def _metadata_fault(metadata: Mapping[str, Any]) -> str:
    if _is_deeper(metadata, MAX_METADATA_DEPTH):
        return f"is nested deeper than {MAX_METADATA_DEPTH} levels"
    size = len(orjson.dumps(metadata))
    return "" if size <= MAX_METADATA_BYTES else f"is {size} bytes as JSON, at most {MAX_METADATA_BYTES} are allowed"


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists are inside one another more than so many times."""
    if not isinstance(value, Mapping | list):
        return False
    inner = value.values() if isinstance(value, Mapping) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)
