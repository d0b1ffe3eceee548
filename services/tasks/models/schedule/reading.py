"""Schedules out of what callers wrote."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Protocol

from services.chassis.errors import Violation
from services.tasks.models.schedule.cron import read_cron
from services.tasks.models.schedule.fault import ScheduleFault, Unreadable
from services.tasks.models.schedule.icalendar import read_recurrence
from services.tasks.models.schedule.single import read_condition, read_never, read_once, read_topic
from services.tasks.models.schedule.wall_clock import zone_named
from services.tasks.models.task import ScheduleKind


class Schedule(Protocol):
    """When to fire: a value. Every answer takes milliseconds, however far apart the times are."""

    def __hash__(self) -> int: ...

    def first(self, now: datetime) -> datetime | None:
        """The first nominal time of a schedule that begins now; a single instant may lie in the past."""

    def after(self, instant: datetime) -> datetime | None:
        """The first nominal time strictly after `instant`, or None when there is none."""

    def upcoming(self, instant: datetime) -> Iterator[datetime]:
        """The nominal times strictly after `instant`, in order."""

    def named(self, instant: datetime) -> datetime | None:
        """The local time, without zone, that the schedule asks for when it fires at `instant`.

        It differs from what clocks show then when they skip it. None where a schedule takes every time that clocks
        show, or none at all.
        """


def parse_schedule(kind: ScheduleKind, expression: str, timezone: str, anchor: datetime) -> Schedule:
    """The schedule that the fields describe; `anchor` is where a recurrence begins that does not say so itself.

    Raises ScheduleFault with every fault in them.
    """
    zone = zone_named(timezone)
    faults = [] if zone else [Violation("timezone", f"{timezone!r} is not an IANA timezone: {_ZONE_EXAMPLES}")]
    # A topic is compared as it is written.
    expression = expression if kind is ScheduleKind.EVENT else expression.strip()
    try:
        schedule = _read(kind, expression, zone or UTC, anchor if kind is ScheduleKind.RRULE else _NO_ANCHOR)
    except Unreadable as fault:
        faults.append(Violation("schedule_expr", str(fault)))
    if faults:
        raise ScheduleFault(*faults)
    return schedule


def is_timezone(name: str) -> bool:
    """Whether there is an IANA timezone of this name."""
    return zone_named(name) is not None


# Many tasks have the same schedule, and each of them is read whenever it fires.
@lru_cache(1024)
def _read(kind: ScheduleKind, expression: str, zone: tzinfo, anchor: datetime) -> Schedule:
    return _READERS[kind](expression, zone, anchor)


_NO_ANCHOR = datetime(1970, 1, 1, tzinfo=UTC)
_ZONE_EXAMPLES = "use a name such as UTC or Europe/Chisinau"
_READERS: Mapping[ScheduleKind, Callable[[str, tzinfo, datetime], Schedule]] = {
    ScheduleKind.CRON: read_cron,
    ScheduleKind.RRULE: read_recurrence,
    ScheduleKind.ONCE: read_once,
    ScheduleKind.MANUAL: read_never,
    ScheduleKind.EVENT: read_topic,
    ScheduleKind.CONDITION: read_condition,
}
