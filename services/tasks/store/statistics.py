"""How runs went, counted in SQL from indexes: no run is loaded."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, literal, select

from services.chassis.ids import lowest_id_at
from services.tasks.models.run import Run, RunStatus
from services.tasks.models.run_filter import ENDED, RunFilter
from services.tasks.store import history, pages
from services.tasks.store.tables import run_history, runs, tasks

_h = run_history.c
_JUDGED = (RunStatus.SUCCEEDED, RunStatus.FAILED)


@dataclass(frozen=True)
class RunStats:
    """How many runs there were since a time, by what became of them."""

    ended: dict[RunStatus, int]
    live: int
    avg_duration_seconds: float | None
    """Of those that succeeded or failed."""
    last_run_at: datetime | None
    """When the newest run was queued, and so on."""
    last_success_at: datetime | None
    last_failure_at: datetime | None

    @property
    def total(self) -> int:
        return self.live + sum(self.ended.values())

    def rate(self, status: RunStatus) -> float | None:
        """The share of those that succeeded or failed; None when there are none."""
        judged = sum(self.ended[of] for of in _JUDGED)
        return self.ended[status] / judged if judged else None


@dataclass(frozen=True)
class Summary:
    """How the runs of all tasks went."""

    stats: RunStats
    tasks: int
    """How many different tasks of Baton's own were run."""


def latest_run(connection: Connection, task_id: str) -> Run | None:
    """A task's newest run, whole."""
    newest = pages.newest_ids(connection, RunFilter(task_ids=(task_id,)), limit=1)
    return history.get_run(connection, newest[0]) if newest else None


def run_stats(connection: Connection, since: datetime, task_id: str | None = None) -> RunStats:
    """The runs since a time: those of one task, or all."""
    rows = {RunStatus(row.status): row for row in connection.execute(_by_status(since, task_id))}
    judged = [rows[status] for status in _JUDGED if status in rows]
    timed = sum(row.timed for row in judged)
    wanted = RunFilter(task_ids=() if task_id is None else (task_id,), since=since)
    return RunStats(
        ended={status: rows[status].runs if status in rows else 0 for status in ENDED},
        live=connection.execute(_live(since, task_id)).scalar_one(),
        avg_duration_seconds=float(sum(row.milliseconds or 0 for row in judged)) / timed / 1000 if timed else None,
        last_run_at=_newest(connection, wanted),
        last_success_at=_newest(connection, replace(wanted, statuses=frozenset({RunStatus.SUCCEEDED}))),
        last_failure_at=_newest(connection, replace(wanted, statuses=frozenset({RunStatus.FAILED}))),
    )


def summary(connection: Connection, since: datetime) -> Summary:
    """The runs of all tasks since a time."""
    return Summary(run_stats(connection, since), connection.execute(_tasks_run(since)).scalar_one())


def _by_status(since: datetime, task_id: str | None) -> Select[Any]:
    runs_and_times = (
        func.count().label("runs"),
        func.count(_h.duration_ms).label("timed"),
        func.sum(_h.duration_ms).label("milliseconds"),
    )
    # Naming every status makes it a few ranges of the index that begins with it.
    query = select(_h.status, *runs_and_times).where(_ended_since(since)).group_by(_h.status)
    return query if task_id is None else query.where(_h.task_id == task_id)


def _live(since: datetime, task_id: str | None) -> Select[Any]:
    query = select(func.count()).select_from(runs).where(_since(runs.c.id, since))
    return query if task_id is None else query.where(runs.c.task_id == task_id)


def _newest(connection: Connection, wanted: RunFilter) -> datetime | None:
    newest = history.list_runs(connection, wanted, limit=1)
    return newest[0].created_at if newest else None


def _tasks_run(since: datetime) -> Select[Any]:
    # One look into an index for each task, where counting the different ones would read every run.
    ended = select(_h.id).where(_h.task_id == tasks.c.id, _ended_since(since)).limit(1)
    live = select(runs.c.id).where(runs.c.task_id == tasks.c.id, _since(runs.c.id, since)).limit(1)
    found = func.coalesce(ended.scalar_subquery(), live.scalar_subquery())
    return select(func.count()).select_from(tasks).where(found.is_not(None))


def _ended_since(since: datetime) -> ColumnElement[bool]:
    return and_(_h.status.in_(sorted(status.value for status in ENDED)), _since(_h.id, since))


def _since(run_id: ColumnElement[str], since: datetime) -> ColumnElement[bool]:
    return run_id >= literal(lowest_id_at(since), run_id.type)
