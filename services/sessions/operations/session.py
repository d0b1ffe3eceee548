"""Sessions: their beginning, their changes and their ends. Whatever way a status changes, it is one that may follow."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from services.chassis import structs
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import ScopeMissing
from services.chassis.ids import new_id
from services.sessions.errors import (
    SessionEnded,
    SessionEventIllegal,
    SessionNotFound,
    SessionOfAnotherAgent,
    SessionTransitionIllegal,
    SessionVersionMismatch,
)
from services.sessions.models.session import (
    EXPIRY,
    Lapse,
    NewSession,
    Session,
    SessionEvent,
    SessionStatus,
    Transition,
)
from services.sessions.operations import budget, session_faults
from services.sessions.operations import session_telling as telling
from services.sessions.store import session as store

EXPIRY_BATCH = 100
_ADMIN = "admin"
_TIMEOUTS = ("idle_timeout_seconds", "max_lifetime_seconds")


def create_session(
    connection: Connection, new: NewSession, caller: Caller, clock: Clock, *, request_id: str = ""
) -> Session:
    """Stores a session, which is pending. Raises InvalidArgument or ScopeMissing."""
    if new.agent_id != caller.agent_id and not caller.holds(_ADMIN):
        raise ScopeMissing(_ADMIN)
    session_faults.check(connection, metadata=new.metadata, agent_id=new.agent_id)
    now = clock.now()
    session = Session(id=new_id(), created_at=now, updated_at=now, last_activity_at=now, **vars(new))
    store.add_session(connection, session)
    telling.tell_creation(connection, session, caller.agent_id, clock, request_id=request_id)
    return session


def get_session(connection: Connection, session_id: str) -> Session:
    """The session, or SessionNotFound."""
    session = store.find_session(connection, session_id)
    if session is None:
        raise SessionNotFound(session_id)
    return session


def update_session(
    connection: Connection,
    session_id: str,
    changes: Mapping[str, Any],
    caller: Caller,
    clock: Clock,
    retention: timedelta | None,
    *,
    version: int | None = None,
    reason: str = "",
    request_id: str = "",
) -> Session:
    """Changes some fields of a session.

    Raises SessionNotFound, SessionOfAnotherAgent, SessionVersionMismatch, SessionTransitionIllegal, SessionEnded or
    InvalidArgument.
    """
    before = _locked(connection, session_id, caller, clock, retention, version)
    session_faults.check(connection, metadata=changes.get("metadata", {}))
    after = replace(before, **changes)
    if after.status != before.status or ("status" in changes and before.status.is_final):
        _check_transition(before, after.status)
    if before.status.is_final and any(name in changes for name in _TIMEOUTS):
        raise SessionEnded(session_id, before.status)
    saved = _save(
        connection,
        before,
        after,
        clock,
        action="session.update",
        actor=caller.agent_id,
        reason=reason,
        request_id=request_id,
    )
    if saved.task_id != before.task_id:
        budget.tell_move(connection, session_id, (before.task_id, saved.task_id), clock)
    return saved


def send_event(
    connection: Connection,
    session_id: str,
    event: SessionEvent,
    caller: Caller,
    clock: Clock,
    retention: timedelta | None,
    *,
    version: int | None = None,
    reason: str = "",
    request_id: str = "",
) -> Session:
    """Lets something happen to a session; what it is already it stays.

    Raises SessionNotFound, SessionOfAnotherAgent, SessionVersionMismatch or SessionEventIllegal.
    """
    before = _locked(connection, session_id, caller, clock, retention, version)
    is_there = before.status == event.leads_to and not before.status.is_final
    if event.begins != before.status and not is_there:
        raise SessionEventIllegal(session_id, event, before.status, event.leads_to, before.status.events)
    return _save(
        connection,
        before,
        replace(before, status=event.leads_to),
        clock,
        action="session.send_event",
        actor=caller.agent_id,
        event=event,
        reason=reason,
        request_id=request_id,
    )


def record_heartbeat(
    connection: Connection, session_id: str, caller: Caller, clock: Clock, retention: timedelta | None
) -> Session:
    """Notes that a session is alive. Raises SessionNotFound, SessionOfAnotherAgent or SessionEnded."""
    session = _owned(connection, session_id, caller)
    if session.lapse(clock.now(), retention):
        # The expiry loop has not come round yet, and does what is to be done.
        raise SessionEnded(session_id, SessionStatus.EXPIRED)
    if session.status.is_final:
        raise SessionEnded(session_id, session.status)
    alive = _alive(session, clock)
    store.save_activity(connection, alive)
    return alive


def expire_sessions(connection: Connection, clock: Clock, retention: timedelta | None) -> list[Lapse]:
    """Expires up to EXPIRY_BATCH sessions whose time is over; answers why, for each."""
    now = clock.now()
    silent_since = now - retention if retention is not None else None
    lapses = []
    for session in store.lock_due(connection, now=now, silent_since=silent_since, limit=EXPIRY_BATCH):
        lapse = session.lapse(now, retention)
        assert lapse is not None, "what is due by the database is due by the model"
        _expire(connection, session, lapse, clock)
        lapses.append(lapse)
    return lapses


def _owned(connection: Connection, session_id: str, caller: Caller) -> Session:
    """A session that the caller may change and nobody else changes before this transaction ends."""
    session = store.lock_session(connection, session_id)
    if session is None:
        raise SessionNotFound(session_id)
    if session.agent_id != caller.agent_id and not caller.holds(_ADMIN):
        raise SessionOfAnotherAgent(session_id, session.agent_id)
    return session


def _locked(
    connection: Connection,
    session_id: str,
    caller: Caller,
    clock: Clock,
    retention: timedelta | None,
    version: int | None,
) -> Session:
    """The caller's session, of that version if one is given; one whose time is over has expired by now."""
    session = _owned(connection, session_id, caller)
    if version is not None and version != session.version:
        raise SessionVersionMismatch(session_id, version, session.version)
    lapse = session.lapse(clock.now(), retention)
    return _expire(connection, session, lapse, clock) if lapse else session


def _expire(connection: Connection, session: Session, lapse: Lapse, clock: Clock) -> Session:
    expired = replace(session, status=SessionStatus.EXPIRED)
    return _save(connection, session, expired, clock, action="session.expire", actor=EXPIRY, reason=lapse)


def _check_transition(before: Session, status: SessionStatus) -> None:
    if status not in before.status.followers:
        raise SessionTransitionIllegal(before.id, before.status, status, before.status.followers)


def _alive(session: Session, clock: Clock) -> Session:
    """The session, alive now; never earlier than it was, whichever of two transactions began first."""
    return replace(session, last_activity_at=max(session.last_activity_at, clock.now()))


def _save(
    connection: Connection,
    before: Session,
    after: Session,
    clock: Clock,
    *,
    action: str,
    actor: str,
    event: SessionEvent | None = None,
    reason: str = "",
    request_id: str = "",
) -> Session:
    """Stores what has been changed of a locked session, and tells of it. Nothing changed is a sign of life."""
    if before == after and structs.is_same(before.metadata, after.metadata):
        if before.status.is_final:
            return before
        alive = _alive(before, clock)
        store.save_activity(connection, alive)
        return alive
    # Of two transactions the one that began first may come second: times never go back.
    now = max(clock.now(), before.updated_at)
    after = replace(after, updated_at=now, version=before.version + 1)
    if actor != EXPIRY and not before.status.is_final:
        after = _alive(after, clock)
    if after.status != before.status:
        after = replace(after, last_transition_at=now)
    store.save_session(connection, after)
    telling.tell_change(
        connection, before, after, clock, action=action, actor=actor, note=reason, request_id=request_id
    )
    if after.status != before.status:
        transition = Transition(after.id, after.version, before.status, after.status, event, reason, actor, now)
        store.add_transition(connection, transition)
        telling.tell_transition(connection, after, transition, clock)
    return after
