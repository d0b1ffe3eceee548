"""How tasks stand: by the newest run of each."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, String, desc, literal, literal_column, or_, select, union_all

from services.tasks.models.run import LIVE, Run, RunStatus
from services.tasks.models.run_filter import ENDED, RunFilter
from services.tasks.store import history, pages
from services.tasks.store.matching import live_status
from services.tasks.store.tables import run_history, runs, tasks

_h = run_history.c


def newest_run(connection: Connection, task_id: str) -> Run | None:
    """A task's newest run, without inputs and output."""
    ids = pages.newest_ids(connection, RunFilter(task_ids=(task_id,)), limit=1)
    found = history.runs_by_id(connection, ids)
    return found[0] if found else None


def is_walked(statuses: Collection[RunStatus]) -> bool:
    """Whether tasks that stand so are found by going through tasks; those with live runs are found by these."""
    return not LIVE.issuperset(statuses)


def stands(statuses: Collection[RunStatus]) -> list[ColumnElement[bool]]:
    """What a task must be like whose newest run is in one of the states."""
    newest = _newest_status().in_([status.value for status in statuses])
    if not is_walked(statuses):
        return [tasks.c.id.in_(select(runs.c.task_id).where(_is_live(statuses))), newest]
    # A task is first asked whether it has any such run at all, which is one look at an index. Scalars, because
    # PostgreSQL would make joins of anything else, and read the runs of all tasks for one page.
    one: ColumnElement[Any] = literal_column("1")
    ended = _h.status.in_([status.value for status in statuses if status in ENDED])
    found = [select(one).where(_h.task_id == tasks.c.id, ended)]
    if not ENDED.issuperset(statuses):
        found.append(select(one).where(runs.c.task_id == tasks.c.id, _is_live(statuses)))
    return [or_(*(any_run.limit(1).correlate(tasks).scalar_subquery().is_not(None) for any_run in found)), newest]


def _is_live(statuses: Collection[RunStatus]) -> ColumnElement[bool]:
    return live_status.in_([status.value for status in statuses if status in LIVE])


def _newest_status() -> ColumnElement[str]:
    """The newest of the newest live run and the newest of each other status, for which there are indexes."""
    live = select(runs.c.id, live_status.label("status")).where(runs.c.task_id == tasks.c.id)
    newest = [live.order_by(runs.c.id.desc())]
    for status in sorted(ENDED):
        ended = select(_h.id, literal(status.value, String(24)).label("status"))
        newest.append(ended.where(_h.task_id == tasks.c.id, _h.status == status.value).order_by(_h.id.desc()))
    # Wrapped, because SQLite allows no ORDER BY inside of a compound SELECT.
    found = union_all(*(select(one.limit(1).correlate(tasks).subquery()) for one in newest)).subquery()
    return select(found.c.status).order_by(desc(found.c.id)).limit(1).scalar_subquery()
