"""What explains why a run is not under way."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select

from services.tasks.store.line import HAS_KEY
from services.tasks.store.tables import dedupe_keys, runs, workers


def live_run(connection: Connection, run_id: str) -> Row[Any] | None:
    """What is known of a run that is not finished."""
    return connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()


def oldest_live_run(connection: Connection, task_id: str) -> str | None:
    """The id of a task's oldest run that is not finished."""
    found: str | None = connection.execute(
        select(runs.c.id).where(runs.c.task_id == task_id).order_by(runs.c.id).limit(1)
    ).scalar_one_or_none()
    return found


def last_seen(connection: Connection, role: str) -> datetime | None:
    """When a worker last asked for runs of this role."""
    seen: datetime | None = connection.execute(
        select(func.max(workers.c.seen_at)).where(workers.c.role == role)
    ).scalar_one()
    return seen


def is_served(connection: Connection, role: str, now: datetime) -> bool:
    """Whether somebody works on a run of this role."""
    held = select(runs.c.id).where(runs.c.lease_token.is_not(None), runs.c.lease_expires_at > now, runs.c.role == role)
    return connection.execute(held.limit(1)).one_or_none() is not None


def holder_of(connection: Connection, concurrency_key: str) -> Row[Any] | None:
    """The run that is under way with this key."""
    return connection.execute(
        select(runs.c.id, runs.c.task, runs.c.lease_expires_at, runs.c.cancel_requested_at).where(
            runs.c.concurrency_key == concurrency_key, runs.c.lease_token.is_not(None), HAS_KEY
        )
    ).one_or_none()


def head_of(connection: Connection, role: str, concurrency_key: str) -> str | None:
    """The first in line of this role and key."""
    head: str | None = connection.execute(
        select(runs.c.id).where(
            runs.c.role == role, runs.c.concurrency_key == concurrency_key, ~runs.c.blocked, HAS_KEY
        )
    ).scalar_one_or_none()
    return head


def holder_of_dedupe_key(connection: Connection, created_by: str, dedupe_key: str) -> Row[Any] | None:
    """The run that took an owner's dedupe key last, and when."""
    return connection.execute(
        select(dedupe_keys.c.run_id, dedupe_keys.c.created_at).where(
            dedupe_keys.c.created_by == created_by, dedupe_keys.c.dedupe_key == dedupe_key
        )
    ).one_or_none()


def count_ahead(connection: Connection, run: Row[Any], now: datetime, *, at_most: int) -> int:
    """How many runs of the same role are due and at least as urgent by priority, counted up to `at_most`."""
    ahead = (
        select(runs.c.id)
        .where(
            runs.c.role == run.role,
            runs.c.lease_token.is_(None),
            runs.c.reported_status.is_(None),
            runs.c.paused_at.is_(None),
            ~runs.c.blocked,
            runs.c.priority <= run.priority,
            runs.c.due_at <= min(run.due_at, now),
            # Of two that are equal in both the older one comes first.
            or_(runs.c.priority < run.priority, runs.c.due_at < run.due_at, runs.c.id < run.id),
        )
        .limit(at_most)
        .subquery()
    )
    count: int = connection.execute(select(func.count()).select_from(ahead)).scalar_one()
    return count
