"""What a filter means in SQL: conditions on live and on finished runs, and the range of ids that times stand for."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeGuard
from uuid import UUID

from sqlalchemy import ColumnElement, String, and_, case, cast, func, literal, literal_column, or_, true
from sqlalchemy.sql import ColumnCollection

from services.chassis.any_case import in_any_case
from services.chassis.clock import EPOCH
from services.chassis.ids import lowest_id_after, lowest_id_at
from services.tasks.models.run import LIVE, RunStatus
from services.tasks.models.run_filter import ENDED, RunFilter
from services.tasks.store.tables import run_history, runs

Condition = ColumnElement[bool]
Columns = ColumnCollection[str, Any]

# By how few runs there usually are of one value.
VALUES = {
    "event_id": "event_ids",
    "batch_id": "batch_ids",
    "task_id": "task_ids",
    "task": "tasks",
    "agent_id": "agent_ids",
    "role": "roles",
}
"""The columns that are compared with a list of values, and where the list is in the filter."""

_BELOW_MILLISECONDS = 80  # bits of an id
_NOTHING: ColumnElement[str] = literal_column("''")

live_status = cast(
    case(
        (runs.c.reported_status.is_not(None), runs.c.reported_status),
        (runs.c.lease_token.is_(None), RunStatus.QUEUED.value),
        else_=RunStatus.RUNNING.value,
    ),
    String(24),
)


class Span(NamedTuple):
    """The ids from `lowest` on and below `bound`, of runs from `since` on and before `until`; None is no limit.

    The ids are a range of an index, of whole milliseconds. Within the first and the last one, times decide.
    """

    lowest: str | None = None
    bound: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self, c: Columns) -> list[Condition]:
        found: list[Condition] = []
        if self.lowest is not None:
            found.append(c.id >= literal(self.lowest, c.id.type))
        if self.bound is not None:
            found.append(c.id < literal(self.bound, c.id.type))
        if _is_within_millisecond(self.since):
            found.append(or_(c.id >= literal(lowest_id_after(self.since), c.id.type), _time(c) >= self.since))
        if _is_within_millisecond(self.until):
            found.append(or_(c.id < literal(lowest_id_at(self.until), c.id.type), _time(c) < self.until))
        return found


def _is_within_millisecond(instant: datetime | None) -> TypeGuard[datetime]:
    return instant is not None and lowest_id_at(instant) != lowest_id_after(instant)


def _time(c: Columns) -> ColumnElement[datetime]:
    """The time that a run's id is of."""
    return case((c.reported, c.started_at), else_=c.created_at)


def span(wanted: RunFilter, before_id: str | None = None) -> Span:
    """The ids of the filter's times, below `before_id`."""
    lowest = None if wanted.since is None else lowest_id_at(wanted.since)
    bounds = [] if wanted.until is None else [lowest_id_after(wanted.until)]
    bounds += [] if before_id is None else [before_id.lower()]
    return Span(lowest, min(bounds, default=None), wanted.since, wanted.until)


def instant_of(run_id: str) -> datetime:
    """The time in an id."""
    return EPOCH + (UUID(run_id).int >> _BELOW_MILLISECONDS) * timedelta(milliseconds=1)


def values(wanted: RunFilter, c: Columns, *, without: str | None = None, leading: str | None = None) -> list[Condition]:
    """That each column but one has one of the values that the filter lists for it.

    With a `leading` column, no index of another is used: databases know the truth of a comparison, in these words, but
    not that an index has it.
    """
    lists = {column: getattr(wanted, name) for column, name in VALUES.items() if column != without}
    inside = {column: c[column].in_(list(wanted_values)) for column, wanted_values in lists.items() if wanted_values}
    found = [one if leading in (None, column) else one.is_(true()) for column, one in inside.items()]
    if wanted.batch_ids and "" not in wanted.batch_ids:
        found.append(c.batch_id != _NOTHING)  # in the words of the indexes of batches, which know no other runs
    return found


def live(wanted: RunFilter) -> list[Condition]:
    """What live runs must be like, but for times and text."""
    found = values(wanted, runs.c)
    if wanted.live != LIVE:
        found.append(live_status.in_([status.value for status in wanted.live]))
    return found


def ended(wanted: RunFilter, c: Columns = run_history.c, *, leading: str | None = None) -> list[Condition]:
    """What finished runs must be like, but for times and text."""
    found = values(wanted, c, leading=leading)
    if wanted.ended != ENDED:
        found.append(c.status.in_([status.value for status in wanted.ended]))
    return found


def tells(c: Columns) -> Condition:
    """Whether a run has more text than its name. Worded like the indexes of such runs, so with no parameters."""
    return or_(c.log_excerpt != _NOTHING, c.error.is_not(None))


def told(c: Columns) -> ColumnElement[str]:
    """A run's text besides its name, on PostgreSQL. Worded like the index of its trigrams."""
    message: ColumnElement[str] = c.error.op("->>")(literal_column("'message'"))
    log: ColumnElement[str] = c.log_excerpt
    return log.op("||")(literal_column("chr(10)")).op("||")(func.coalesce(message, _NOTHING))


def contains(text: ColumnElement[str], sought: str) -> Condition:
    """Whether a text has another one in it, whatever the case."""
    return text.regexp_match(in_any_case(sought))


def says(c: Columns, sought: str) -> Condition:
    """Whether a run has the text in any of its texts: for few runs, as it reads each."""
    log, message = c.log_excerpt, func.coalesce(c.error["message"].as_string(), "")
    return or_(contains(c.task, sought), and_(tells(c), or_(contains(log, sought), contains(message, sought))))
