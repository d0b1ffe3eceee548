"""The tasks whose time has come."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, String, Text, Update, cast, func, select, update

from services.chassis.columns import Id, Timestamp
from services.tasks.models.task import Task, TaskStatus
from services.tasks.store import batch
from services.tasks.store.batch import Columns, per_engine
from services.tasks.store.tables import tasks
from services.tasks.store.task import task_from_row

# Payloads of 1 MiB each are not all held in memory at once.
MAX_CHARACTERS = 16 * 1024 * 1024
_MOVE: Columns = {
    "id": Id(),
    "was": Timestamp(),
    "status": String(),
    "next_fire_at": Timestamp(),
    "next_scheduled_for": Timestamp(),
}


@dataclass(frozen=True)
class Move:
    """A schedule that goes on."""

    task_id: str
    was: datetime
    """When it fired."""
    status: TaskStatus
    next_fire_at: datetime | None
    next_scheduled_for: datetime | None


def lock_due_tasks(connection: Connection, *, now: datetime, limit: int) -> tuple[list[Task], bool]:
    """Active tasks whose time has come, locked, and whether there may be more; those locked elsewhere are passed over.

    The earliest come first, `limit` at most, and none is added once their payloads have MAX_CHARACTERS of JSON.
    """
    batch.use_indexes(connection)
    due = connection.execute(
        select(tasks.c.id, func.length(cast(tasks.c.payload, Text)).label("characters"))
        .where(tasks.c.status == TaskStatus.ACTIVE, tasks.c.next_fire_at <= now)
        .order_by(tasks.c.next_fire_at, tasks.c.id)
        .limit(limit)
        # Those who only make runs of a task need not wait.
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    task_ids, characters = [], 0
    for task_id, length in due:
        if characters >= MAX_CHARACTERS:
            break
        task_ids.append(task_id)
        characters += length
    chosen = select(tasks).where(batch.among(tasks.c.id, batch.is_postgres(connection)))
    found = connection.execute(chosen, batch.ids(connection, task_ids)) if task_ids else ()
    return [task_from_row(row) for row in found], len(due) == limit or len(task_ids) < len(due)


def next_fire_time(connection: Connection) -> datetime | None:
    """When the scheduler has something to do next."""
    earliest: datetime | None = connection.execute(
        select(func.min(tasks.c.next_fire_at)).where(
            tasks.c.status == TaskStatus.ACTIVE, tasks.c.next_fire_at.is_not(None)
        )
    ).scalar_one()
    return earliest


def move_on(connection: Connection, moves: Iterable[Move]) -> int:
    """Sets when tasks fire next, unless somebody else has done so since they fired; answers of how many."""
    rows = [(move.task_id, move.was, move.status, move.next_fire_at, move.next_scheduled_for) for move in moves]
    if not rows:
        return 0
    return connection.execute(_move(connection), batch.rows(connection, _MOVE, rows)).rowcount


@per_engine
def _move(for_postgres: bool) -> Update:
    given = batch.given(_MOVE, for_postgres)
    changed = ("status", "next_fire_at", "next_scheduled_for")
    return (
        update(tasks)
        .where(tasks.c.id == given.c.id, tasks.c.next_fire_at == given.c.was)
        .values({name: given.c[name] for name in changed})
    )
