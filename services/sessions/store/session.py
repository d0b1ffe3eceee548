"""Sessions, as rows."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, insert, select, tuple_, update

from services.sessions.models.session import Session, SessionEvent, SessionFilter, SessionStatus, Transition
from services.sessions.store.tables import is_active, is_open, session_transitions, sessions

_KEPT = ("id", "created_at", "agent_role", "agent_id")


def add_session(connection: Connection, session: Session) -> None:
    """Stores a new session."""
    connection.execute(insert(sessions).values(_values(session)))


def find_session(connection: Connection, session_id: str) -> Session | None:
    """One session by its id."""
    return _one(connection, select(sessions).where(sessions.c.id == session_id))


def lock_session(connection: Connection, session_id: str) -> Session | None:
    """A session that nobody else changes before this transaction ends."""
    return _one(connection, select(sessions).where(sessions.c.id == session_id).with_for_update())


def save_session(connection: Connection, session: Session) -> None:
    """Stores what has been changed of a session that is locked."""
    values = {name: value for name, value in _values(session).items() if name not in _KEPT}
    connection.execute(update(sessions).where(sessions.c.id == session.id).values(values))


def save_activity(connection: Connection, session: Session) -> None:
    """Stores when a session that is locked was last alive, and nothing else."""
    values = _values(session)
    changed = {name: values[name] for name in ("last_activity_at", "expires_at")}
    connection.execute(update(sessions).where(sessions.c.id == session.id).values(changed))


def lock_due(connection: Connection, *, now: datetime, silent_since: datetime | None, limit: int) -> list[Session]:
    """Up to `limit` sessions whose time is over, or that were silent since then, locked; those that others have
    locked are left to a later round."""
    due = _lock_some(connection, sessions.c.expires_at <= now, limit)
    if silent_since is not None and len(due) < limit:
        known = {session.id for session in due}
        silent = _lock_some(connection, sessions.c.last_activity_at <= silent_since, limit)
        due += [session for session in silent if session.id not in known]
    return due[:limit]


def _lock_some(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[Session]:
    query = select(sessions).where(is_open, condition).limit(limit).with_for_update(skip_locked=True)
    return [_session(row) for row in connection.execute(query)]


def existing(connection: Connection, session_ids: Collection[str]) -> set[str]:
    """Those of the sessions that there are."""
    return set(connection.execute(select(sessions.c.id).where(sessions.c.id.in_(session_ids))).scalars())


def open_about(connection: Connection, task_ids: Collection[str]) -> dict[str, str]:
    """The newest session about each task that has not ended, by the task."""
    if not task_ids:
        return {}
    query = select(sessions.c.task_id, func.max(sessions.c.created_at).label("created_at"))
    newest = query.where(sessions.c.task_id.in_(task_ids), is_open).group_by(sessions.c.task_id).subquery()
    same = (sessions.c.task_id == newest.c.task_id) & (sessions.c.created_at == newest.c.created_at)
    found = connection.execute(select(sessions.c.task_id, sessions.c.id).join(newest, same))
    return {row.task_id: row.id for row in found}


def list_sessions(
    connection: Connection, wanted: SessionFilter, *, limit: int, before_id: str | None = None, offset: int = 0
) -> list[Session]:
    """Up to `limit` sessions, newest first, with smaller ids than `before_id`, the first `offset` passed over."""
    query = select(sessions).where(*_conditions(wanted)).order_by(sessions.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(sessions.c.id < before_id)
    if offset:
        query = query.offset(offset)
    return [_session(row) for row in connection.execute(query)]


def count_sessions(connection: Connection, wanted: SessionFilter, *, at_most: int) -> int:
    """How many sessions pass the filter, counted up to `at_most`."""
    found = select(sessions.c.id).where(*_conditions(wanted)).limit(at_most).subquery()
    return connection.execute(select(func.count()).select_from(found)).scalar_one()


def list_active(
    connection: Connection, *, agent_role: str, limit: int, before: tuple[datetime, str] | None
) -> list[Session]:
    """Up to `limit` active sessions, those first that were changed last; `before` is the change and id of one."""
    query = select(sessions).where(is_active)
    if agent_role:
        query = query.where(sessions.c.agent_role == agent_role)
    if before is not None:
        query = query.where(tuple_(sessions.c.updated_at, sessions.c.id) < before)
    query = query.order_by(sessions.c.updated_at.desc(), sessions.c.id.desc()).limit(limit)
    return [_session(row) for row in connection.execute(query)]


def add_transition(connection: Connection, transition: Transition) -> None:
    """Stores one change of a session's status."""
    connection.execute(insert(session_transitions).values(asdict(transition)))


def list_transitions(
    connection: Connection, session_id: str, *, limit: int, before_version: int | None
) -> list[Transition]:
    """Up to `limit` changes of a session's status, newest first, before a version."""
    query = select(session_transitions).where(session_transitions.c.session_id == session_id)
    if before_version is not None:
        query = query.where(session_transitions.c.version < before_version)
    query = query.order_by(session_transitions.c.version.desc()).limit(limit)
    return [_transition(row) for row in connection.execute(query)]


def _values(session: Session) -> dict[str, Any]:
    end = session.end()
    return asdict(session) | {"expires_at": end[0] if end else None}


def _conditions(wanted: SessionFilter) -> Sequence[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.statuses:
        conditions.append(sessions.c.status.in_([status.value for status in wanted.statuses]))
    given = {name: getattr(wanted, name) for name in ("agent_role", "agent_id", "task_id")}
    return [*conditions, *(sessions.c[name] == value for name, value in given.items() if value)]


def _one(connection: Connection, query: Select[Any]) -> Session | None:
    row = connection.execute(query).one_or_none()
    return None if row is None else _session(row)


def _session(row: Row[Any]) -> Session:
    fields = row._asdict()
    del fields["expires_at"]
    return Session(**fields | {"status": SessionStatus(fields["status"])})


def _transition(row: Row[Any]) -> Transition:
    fields = row._asdict()
    for name in ("from_status", "to_status"):
        fields[name] = SessionStatus(fields[name])
    return Transition(**fields | {"event": SessionEvent(row.event) if row.event else None})
