"""Dedupe keys: which run stands for the firings after it."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select, tuple_

from services.chassis.upsert import upsert
from services.tasks.store.tables import dedupe_keys

MAX_WINDOW = timedelta(days=365)
"""The longest window that a task can have: an older run stands for no key."""


def take(
    connection: Connection, created_by: str, key: str, run_id: str, window: timedelta, now: datetime
) -> str | None:
    """The run that already stands for the owner's key; None when from now on `run_id` does, or nothing is deduped.

    A run stands for its key until it is as old as `window`. Of several that race for a key one takes it.
    """
    if not key or not window:
        return None
    statement = upsert(connection, dedupe_keys).values(
        created_by=created_by, dedupe_key=key, run_id=run_id, created_at=now
    )
    taken = statement.on_conflict_do_update(
        index_elements=[dedupe_keys.c.created_by, dedupe_keys.c.dedupe_key],
        set_={"run_id": run_id, "created_at": now},
        where=dedupe_keys.c.created_at <= now - window,
    ).returning(dedupe_keys.c.run_id)
    if connection.execute(taken).scalar_one_or_none() is not None:
        return None
    holder: str = connection.execute(
        select(dedupe_keys.c.run_id).where(dedupe_keys.c.created_by == created_by, dedupe_keys.c.dedupe_key == key)
    ).scalar_one()
    return holder


def forget(connection: Connection, now: datetime, limit: int) -> int:
    """Deletes up to `limit` keys that no run stands for any more, whatever their window is; answers how many."""
    key = tuple_(dedupe_keys.c.created_by, dedupe_keys.c.dedupe_key)
    # Those that somebody takes anew right now are passed over, and remain.
    past = select(*key.clauses).where(dedupe_keys.c.created_at <= now - MAX_WINDOW).limit(limit)
    return connection.execute(delete(dedupe_keys).where(key.in_(past.with_for_update(skip_locked=True)))).rowcount
