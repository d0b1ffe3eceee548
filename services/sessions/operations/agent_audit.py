"""What is told of agents and their tokens to the audit."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx2
import orjson
from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.clock import Clock
from services.sessions.models.agent import Agent
from services.sessions.models.token import Token
from services.sessions.store import tables

# They follow from the others, or say nothing.
_UNTOLD = ("updated_at", "version")


def audit(
    connection: Connection,
    clock: Clock,
    *,
    action: str,
    actor: str,
    agent_id: str,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    note: str = "",
    request_id: str = "",
) -> None:
    """Publishes that somebody did something to an agent, or to what is its."""
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action=action,
        actor=actor,
        resource=f"agent/{agent_id}",
        before=before,
        after=after,
        note=note,
        request_id=request_id,
    )


def audit_change(
    connection: Connection,
    clock: Clock,
    *,
    action: str,
    actor: str,
    before: Agent,
    after: Agent,
    note: str = "",
    request_id: str = "",
) -> None:
    """Publishes which fields somebody has changed of an agent, before and after."""
    changed = [name for name, value in vars(before).items() if value != getattr(after, name) and name not in _UNTOLD]
    audit(
        connection,
        clock,
        action=action,
        actor=actor,
        agent_id=after.id,
        before={name: _told(name, getattr(before, name)) for name in changed},
        after={name: _told(name, getattr(after, name)) for name in changed},
        note=note,
        request_id=request_id,
    )


def agent_told(agent: Agent) -> dict[str, Any]:
    """A new agent, as far as something was said of it."""
    return {name: _told(name, value) for name, value in vars(agent).items() if value and name not in _UNTOLD}


def token_told(token: Token) -> dict[str, Any]:
    """A new token."""
    return {
        "token_id": token.id,
        "kind": token.kind.value,
        "scopes": list(token.scopes),
        "expires_at": token.expires_at.isoformat(),
    }


def _told(name: str, value: Any) -> Any:
    """A value as JSON has it.

    Of what may be large, or nobody else's business, the digest; of a URL, whose rest some receivers let in by, only
    the origin.
    """
    match value:
        case datetime():
            return value.isoformat()
        case Mapping():
            return _digest(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
        case tuple():
            return list(value)
        case str() if name == "webhook_url":
            url = httpx2.URL(value)
            return f"{url.scheme}://{url.netloc.decode('ascii')}"
        case str() if name == "system_prompt":
            return _digest(value.encode())
    return value


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
