"""Many scheduled tasks at once, and whether each of their times got what it is promised."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, insert, select

from services.chassis.backoff import BackoffStrategy
from services.chassis.clock import Clock
from services.chassis.columns import Id
from services.chassis.ids import new_id
from services.tasks.models.task import Misfire, Overlap, ScheduleKind, Task, TaskStatus
from services.tasks.store import batch, tables
from services.tasks.store import task as task_store

SECOND = timedelta(seconds=1)
_IDS: batch.Columns = {"id": Id()}


def add_tasks(connection: Connection, count: int, expression: str, next_at: datetime, **fields: Any) -> None:
    """Adds tasks with a cron expression that fire next at `next_at`."""
    first = _task(new_id(), expression, next_at, fields)
    task_store.add_task(connection, first)
    # The others are copies.
    given = batch.given(_IDS, batch.is_postgres(connection))
    columns = [column.name for column in tables.tasks.c if column.name != "id"]
    source = given.join(tables.tasks, tables.tasks.c.id == first.id)
    copies = select(given.c.id, *(tables.tasks.c[name] for name in columns)).select_from(source)
    ids = batch.rows(connection, _IDS, ((new_id(),) for _ in range(count - 1)))
    connection.execute(insert(tables.tasks).from_select(["id", *columns], copies), ids)


def check_every_second(connection: Connection, clock: Clock) -> int:
    """Asserts that of tasks that fire every second no time was left out, or judged twice; answers how many ran.

    Every time has one outcome, and every time that ran has one run of its own.
    """
    outcomes, ran = tables.occurrences.c, []
    for task in connection.execute(select(tables.tasks)).all():
        query = select(tables.occurrences).where(outcomes.task_id == task.id).order_by(outcomes.scheduled_for)
        judged = connection.execute(query).all()
        for before, after in pairwise(judged):
            assert after.scheduled_for == (before.through or before.scheduled_for) + SECOND
        if judged:
            assert judged[0].scheduled_for == task.schedule_anchor
            assert task.next_scheduled_for == (judged[-1].through or judged[-1].scheduled_for) + SECOND
        of_task = [one.run_id for one in judged if one.outcome == "ran"]
        assert sorted(of_task) == sorted(
            connection.scalars(select(tables.runs.c.id).where(tables.runs.c.task_id == task.id))
        )
        ran += of_task
    assert len(ran) == len(set(ran))
    return len(ran)


@contextmanager
def scheduler_process(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler of its own, killed at the end."""
    command = [sys.executable, "-m", "tests.integration.tasks.scheduler_process", url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _task(owner: str, expression: str, next_at: datetime, fields: dict[str, Any]) -> Task:
    values: dict[str, Any] = {
        "id": new_id(),
        "title": "a task",
        "description": "",
        "schedule_kind": ScheduleKind.CRON,
        "schedule_expr": expression,
        "schedule_anchor": next_at,
        "timezone": "Europe/Chisinau",
        "payload": {"pipeline": []},
        "priority": 5,
        "dedupe_key": "",
        "dedupe_window_seconds": 0,
        "max_retries": 3,
        "backoff_strategy": BackoffStrategy.EXPONENTIAL_JITTER,
        "concurrency_key": "",
        "misfire": Misfire.RUN_ONCE,
        "overlap": Overlap.ALLOW,
        "role": "",
        "created_by": owner,
        "status": TaskStatus.ACTIVE,
        "paused_at": None,
        "next_fire_at": next_at,
        "next_scheduled_for": next_at,
        "created_at": next_at,
        "updated_at": next_at,
    }
    return Task(**values | fields)
