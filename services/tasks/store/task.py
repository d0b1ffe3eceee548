"""Tasks and the occurrences of their schedules."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from services.tasks.models.task import ScheduleKind, Task, TaskStatus
from services.tasks.store.tables import occurrences, tasks


def add_task(connection: Connection, task: Task) -> None:
    """Stores a new task."""
    connection.execute(insert(tasks).values(asdict(task)))


def get_task(connection: Connection, task_id: str) -> Task | None:
    """One task by its id."""
    row = connection.execute(select(tasks).where(tasks.c.id == task_id)).one_or_none()
    return None if row is None else _task(row)


def list_tasks(
    connection: Connection,
    *,
    limit: int,
    before_id: str | None,
    statuses: Iterable[TaskStatus],
    kinds: Iterable[ScheduleKind],
) -> list[Task]:
    """Up to `limit` tasks, newest first, created before `before_id`; empty filters let everything through."""
    query = select(tasks).order_by(tasks.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(tasks.c.id < before_id)
    if wanted := list(statuses):
        query = query.where(tasks.c.status.in_(wanted))
    if wanted_kinds := list(kinds):
        query = query.where(tasks.c.schedule_kind.in_(wanted_kinds))
    return [_task(row) for row in connection.execute(query)]


def lock_due_tasks(connection: Connection, *, now: datetime, limit: int) -> list[Task]:
    """Active tasks whose time has come, earliest first, locked; those locked elsewhere are passed over."""
    due = (
        select(tasks)
        .where(tasks.c.status == TaskStatus.ACTIVE, tasks.c.next_fire_at <= now)
        .order_by(tasks.c.next_fire_at, tasks.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [_task(row) for row in connection.execute(due)]


def next_fire_time(connection: Connection) -> datetime | None:
    """When the scheduler has something to do next."""
    earliest: datetime | None = connection.execute(
        select(func.min(tasks.c.next_fire_at)).where(
            tasks.c.status == TaskStatus.ACTIVE, tasks.c.next_fire_at.is_not(None)
        )
    ).scalar_one()
    return earliest


def set_next_fire_time(connection: Connection, *, task: Task, next_fire_at: datetime | None) -> bool:
    """Moves a task's schedule on, unless somebody else has done so; answers whether it did."""
    moved = connection.execute(
        update(tasks)
        .where(tasks.c.id == task.id, tasks.c.next_fire_at == task.next_fire_at)
        .values(next_fire_at=next_fire_at)
    )
    return moved.rowcount == 1


def add_occurrences(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Records outcomes of nominal times. A time that has one already is an error: it may never get a second."""
    if rows:
        connection.execute(insert(occurrences), rows)


def _task(row: Row[Any]) -> Task:
    values = row._asdict()
    values["schedule_kind"] = ScheduleKind(values["schedule_kind"])
    values["status"] = TaskStatus(values["status"])
    return Task(**values)
