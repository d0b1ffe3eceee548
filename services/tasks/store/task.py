"""Tasks and the occurrences of their schedules."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, insert, or_, select, update

from services.chassis.any_case import in_any_case
from services.chassis.backoff import BackoffStrategy
from services.tasks.models.occurrence import Occurrence, Outcome
from services.tasks.models.run import RunStatus
from services.tasks.models.task import Misfire, Overlap, ScheduleKind, Task, TaskStatus
from services.tasks.models.topic import key_of
from services.tasks.store.pages import read_in_order
from services.tasks.store.standing import is_walked, stands
from services.tasks.store.tables import occurrences, tasks


def add_task(connection: Connection, task: Task) -> None:
    """Stores a new task."""
    connection.execute(insert(tasks).values(asdict(task) | {"topic_key": _topic_key(task)}))


def get_task(connection: Connection, task_id: str) -> Task | None:
    """One task by its id."""
    return _one(connection, select(tasks).where(tasks.c.id == task_id))


def lock_task(connection: Connection, task_id: str) -> Task | None:
    """One task by its id, locked: it waits for whoever changes it, or makes a run of it, and others wait for this."""
    return _one(connection, select(tasks).where(tasks.c.id == task_id).with_for_update())


def keep_tasks(connection: Connection, task_ids: Collection[str]) -> dict[str, Task]:
    """Tasks by their ids, which nobody changes before this transaction ends; locked in one order.

    The weakest lock of PostgreSQL: those who make runs do not wait for each other, nor keep the scheduler from the
    task when it locks with `FOR NO KEY UPDATE`.
    """
    kept = select(tasks).where(tasks.c.id.in_(task_ids)).order_by(tasks.c.id)
    rows = connection.execute(kept.with_for_update(read=True, key_share=True))
    return {row.id: task_from_row(row) for row in rows}


def hold_tasks(connection: Connection, task_ids: Collection[str]) -> None:
    """Lets nobody else hold these tasks, or change them, before this transaction ends; locked in one order.

    Those who only keep them, to make runs, do not wait.
    """
    held = select(tasks.c.id).where(tasks.c.id.in_(task_ids)).order_by(tasks.c.id)
    connection.execute(held.with_for_update(key_share=True)).all()


def change_task(connection: Connection, task: Task, **changes: Any) -> Task:
    """Changes some fields of a locked task; answers it as it is then."""
    changed = replace(task, **changes)
    values = changes | {"topic_key": _topic_key(changed)}
    connection.execute(update(tasks).where(tasks.c.id == task.id).values(values))
    return changed


@dataclass(frozen=True)
class TaskFilters:
    """Which tasks to list: OR within a field, AND across fields; what is empty lets everything through."""

    statuses: Sequence[TaskStatus] = ()
    kinds: Sequence[ScheduleKind] = ()
    created_by: Sequence[str] = ()
    text: str = ""
    """In the title or the description, whatever the case."""
    roles: Sequence[str] = ()
    target: str = ""
    """A role, too."""
    standing: Sequence[RunStatus] = ()
    """What the newest run is."""


def list_tasks(
    connection: Connection, filters: TaskFilters, *, limit: int, before_id: str | None = None, offset: int = 0
) -> list[Task]:
    """Up to `limit` tasks, newest first, created before `before_id`, the first `offset` passed over."""
    if is_walked(filters.standing):
        read_in_order(connection)
    query = select(tasks).where(*_conditions(filters)).order_by(tasks.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(tasks.c.id < before_id)
    if offset:
        query = query.offset(offset)
    return [task_from_row(row) for row in connection.execute(query)]


def count_tasks(connection: Connection, filters: TaskFilters, *, at_most: int) -> int:
    """How many tasks pass the filters, counted up to `at_most`."""
    found = select(tasks.c.id).where(*_conditions(filters)).limit(at_most).subquery()
    return connection.execute(select(func.count()).select_from(found)).scalar_one()


def list_occurrences(
    connection: Connection, task_id: str, *, limit: int, before: datetime | None, outcomes: Sequence[Outcome]
) -> list[Occurrence]:
    """Up to `limit` judged times of a task, newest first, before `before`; no outcomes let everything through."""
    query = select(occurrences).where(occurrences.c.task_id == task_id)
    if before is not None:
        query = query.where(occurrences.c.scheduled_for < before)
    if outcomes:
        query = query.where(occurrences.c.outcome.in_(outcomes))
    rows = connection.execute(query.order_by(occurrences.c.scheduled_for.desc()).limit(limit))
    return [Occurrence(**row._asdict() | {"outcome": Outcome(row.outcome)}) for row in rows]


def is_judged(connection: Connection, task_id: str, nominal: datetime) -> bool:
    """Whether a nominal time of a task has its outcome."""
    query = select(occurrences.c.outcome).where(
        occurrences.c.task_id == task_id, occurrences.c.scheduled_for == nominal
    )
    return connection.execute(query).one_or_none() is not None


def _topic_key(task: Task) -> str | None:
    return key_of(task.schedule_expr) if task.schedule_kind is ScheduleKind.EVENT else None


def _conditions(filters: TaskFilters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.statuses:
        conditions.append(tasks.c.status.in_(filters.statuses))
    if filters.kinds:
        conditions.append(tasks.c.schedule_kind.in_(filters.kinds))
    if filters.created_by:
        conditions.append(tasks.c.created_by.in_(filters.created_by))
    if filters.roles:
        conditions.append(tasks.c.role.in_(filters.roles))
    if filters.target:
        conditions.append(tasks.c.role == filters.target)
    if filters.standing:
        conditions.extend(stands(filters.standing))
    if filters.text:
        pattern = in_any_case(filters.text)
        conditions.append(
            or_(tasks.c.title.regexp_match(pattern), tasks.c.description.regexp_match(pattern)),
        )
    return conditions


def _one(connection: Connection, query: Select[Any]) -> Task | None:
    row = connection.execute(query).one_or_none()
    return None if row is None else task_from_row(row)


def task_from_row(row: Row[Any]) -> Task:
    """A row of tasks."""
    values = row._asdict()
    del values["topic_key"]
    values["schedule_kind"] = ScheduleKind(values["schedule_kind"])
    values["status"] = TaskStatus(values["status"])
    values["backoff_strategy"] = BackoffStrategy(values["backoff_strategy"])
    values["misfire"] = Misfire(values["misfire"])
    values["overlap"] = Overlap(values["overlap"])
    return Task(**values)
