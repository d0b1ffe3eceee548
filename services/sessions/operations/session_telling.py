"""What is told of sessions, to the audit and to those who wait for events."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.clock import Clock
from services.sessions.models.session import Session, SessionStatus, Transition
from services.sessions.store import tables

# They follow from the others, or say nothing.
_UNTOLD = ("updated_at", "last_activity_at", "last_transition_at", "version")
_CREATED = "session.created"
# What has happened when a session is in this status.
_TOPICS = {
    SessionStatus.ACTIVE: "session.activated",
    SessionStatus.PAUSED: "session.paused",
    SessionStatus.COMPLETED: "session.completed",
    SessionStatus.FAILED: "session.failed",
    SessionStatus.EXPIRED: "session.expired",
}


def tell_creation(connection: Connection, session: Session, actor: str, clock: Clock, *, request_id: str) -> None:
    """Publishes that somebody has created a session."""
    after = {name: _told(value) for name, value in vars(session).items() if value and name not in _UNTOLD}
    _audit(connection, clock, "session.create", actor, session.id, after=after, request_id=request_id)
    _publish(connection, clock, _CREATED, session)


def tell_change(
    connection: Connection,
    before: Session,
    after: Session,
    clock: Clock,
    *,
    action: str,
    actor: str,
    note: str = "",
    request_id: str = "",
) -> None:
    """Publishes which fields somebody has changed of a session, before and after."""
    old, new = ({name: _told(value) for name, value in vars(one).items()} for one in (before, after))
    changed = [name for name in old if old[name] != new[name] and name not in _UNTOLD]
    _audit(
        connection,
        clock,
        action,
        actor,
        after.id,
        before={name: old[name] for name in changed},
        after={name: new[name] for name in changed},
        note=note,
        request_id=request_id,
    )


def tell_transition(connection: Connection, session: Session, transition: Transition, clock: Clock) -> None:
    """Publishes what a session has become."""
    _publish(
        connection,
        clock,
        _TOPICS[transition.to_status],
        session,
        previous_status=transition.from_status.value,
        reason=transition.reason,
        actor=transition.actor,
    )


def _audit(connection: Connection, clock: Clock, action: str, actor: str, session_id: str, **told: Any) -> None:
    resource = f"session/{session_id}"
    outbox.audit(connection, tables.outbox, clock, action=action, actor=actor, resource=resource, **told)


def _publish(connection: Connection, clock: Clock, topic: str, session: Session, **more: str) -> None:
    payload = {
        "session_id": session.id,
        "agent_role": session.agent_role,
        "agent_id": session.agent_id,
        "task_id": session.task_id,
        "status": session.status.value,
        **more,
    }
    outbox.event(connection, tables.outbox, clock, topic=topic, payload=payload)


def _told(value: Any) -> Any:
    """A value as JSON has it; of metadata, which may be large and is nobody else's business, the digest."""
    match value:
        case datetime():
            return value.isoformat()
        case Mapping():
            return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return value
