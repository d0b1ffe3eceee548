"""Schedules: which instants a task fires at. Fire times are computed here, in Python, and stored in UTC."""

import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol

from cronsim import CronSim, CronSimError

from services.chassis.errors import Violation
from services.tasks.models.task import ScheduleKind

# A nominal time that was missed by more than this is not made up for.
MISFIRE_WINDOW = timedelta(hours=1)
# So many nominal times of one task are judged at once.
MAX_DUE = 100

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class ScheduleFault(Exception):
    """A schedule that cannot be read; says in which fields, and why."""

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = violations


class Schedule(Protocol):
    """When to fire."""

    def first(self, now: datetime) -> datetime | None:
        """The first nominal time of a schedule that begins now; a single instant may lie in the past."""

    def after(self, instant: datetime) -> datetime | None:
        """The first nominal time strictly after `instant`, or None when there is none."""


@dataclass(frozen=True)
class Cron:
    """A cron expression in a timezone.

    A local time that a clock change skips fires once, at the first instant after the gap; one that happens
    twice fires once, the first time. Expressions with `*` for the minute or the hour fire by elapsed time instead.
    """

    expression: str
    zone: tzinfo

    def first(self, now: datetime) -> datetime | None:
        return self.after(now)

    def after(self, instant: datetime) -> datetime | None:
        # Where an hour happens twice, wall clocks go back: what they say next may lie in the past.
        return next((found for found in self._near(instant.astimezone(self.zone)) if found > instant), None)

    def _near(self, local: datetime) -> Iterator[datetime]:
        """The nominal times around and after a local time, in order."""
        *_, minute, hour, _, _, _ = self.expression.split()
        if minute.startswith("*") or hour.startswith("*"):
            return (found.astimezone(UTC) for found in CronSim(self.expression, local))
        # Read off a wall clock that knows no zone. CronSim minds clock changes too, but with 5 fields only.
        walls = CronSim(self.expression, local.replace(tzinfo=None))
        return (_instant(wall, self.zone) for wall in walls)


@dataclass(frozen=True)
class Once:
    """One instant."""

    instant: datetime

    def first(self, now: datetime) -> datetime | None:
        return self.instant

    def after(self, instant: datetime) -> datetime | None:
        return self.instant if self.instant > instant else None


@dataclass(frozen=True)
class Never:
    """No schedule at all."""

    def first(self, now: datetime) -> datetime | None:
        return None

    def after(self, instant: datetime) -> datetime | None:
        return None


def parse_schedule(kind: ScheduleKind, expression: str, timezone: str) -> Schedule:
    """The schedule that the three fields describe. Raises ScheduleFault with every fault in them."""
    zone = _zone(timezone)
    faults = [] if zone else [Violation("timezone", f"{timezone!r} is not an IANA timezone: {_ZONE_EXAMPLES}")]
    try:
        schedule = _READERS[kind](expression.strip(), zone or UTC)
    except _Unreadable as fault:
        faults.append(Violation("schedule_expr", str(fault)))
    if faults:
        raise ScheduleFault(*faults)
    return schedule


def is_timezone(name: str) -> bool:
    """Whether there is an IANA timezone of this name."""
    return _zone(name) is not None


def due_times(schedule: Schedule, since: datetime, now: datetime) -> list[datetime]:
    """The nominal times from `since` (itself one) until `now`, oldest first.

    Times that are older than the misfire window are represented by the first of them alone.
    """
    times = [since]
    instant: datetime | None = max(since, now - MISFIRE_WINDOW)
    while instant is not None and (instant := schedule.after(instant)) is not None and instant <= now:
        times.append(instant)
    return times[:1] + times[1:][-MAX_DUE:]


class _Unreadable(Exception):
    """What is wrong with an expression."""


def _instant(wall: datetime, zone: tzinfo) -> datetime:
    """The instant of a local time: the first of two, or the first after the gap that swallowed it."""
    instant = wall.replace(tzinfo=zone).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == wall:
        return instant
    # Clocks change on whole minutes.
    minute = wall.replace(second=0, microsecond=0)
    while (instant := minute.replace(tzinfo=zone).astimezone(UTC)).astimezone(zone).replace(tzinfo=None) != minute:
        minute += timedelta(minutes=1)
    return instant


def _zone(timezone: str) -> tzinfo | None:
    try:
        return zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _cron(expression: str, zone: tzinfo) -> Cron:
    _require(expression, ScheduleKind.CRON)
    fields = _ALIASES.get(expression.lower(), expression)
    if fields.startswith("@"):
        raise _Unreadable(f"{expression!r} is not an alias: use one of {', '.join(_ALIASES)}")
    try:
        CronSim(fields, datetime(2000, 1, 1, tzinfo=zone))
    except CronSimError as error:
        description = f"{expression!r} is not a cron expression ({str(error).lower()}): use 5 or 6 fields"
        raise _Unreadable(description) from None
    return Cron(fields, zone)


def _once(expression: str, zone: tzinfo) -> Once:
    _require(expression, ScheduleKind.ONCE)
    try:
        # RFC 3339 lets `t` and `z` be small.
        instant = datetime.fromisoformat(expression.upper())
    except ValueError:
        description = f"{expression!r} is not an instant: use RFC 3339, such as 2026-12-24T18:00:00+02:00"
        raise _Unreadable(description) from None
    try:
        return Once(instant.astimezone(UTC) if instant.tzinfo else _instant(instant, zone))
    except OverflowError:
        raise _Unreadable(f"{expression!r} is out of range") from None


def _never(expression: str, zone: tzinfo) -> Never:
    if expression:
        raise _Unreadable("must be empty for a manual task: it has no schedule")
    return Never()


def _require(expression: str, kind: ScheduleKind) -> None:
    if not expression:
        raise _Unreadable(f"is required for schedule_kind {kind}")


_ZONE_EXAMPLES = "use a name such as UTC or Europe/Chisinau"
_READERS: Mapping[ScheduleKind, Callable[[str, tzinfo], Schedule]] = {
    ScheduleKind.CRON: _cron,
    ScheduleKind.ONCE: _once,
    ScheduleKind.MANUAL: _never,
}
