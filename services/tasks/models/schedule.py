"""Schedules: which instants a task fires at. Fire times are computed here, in Python, and stored in UTC."""

import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
    """A schedule that cannot be read; says in which field, and why."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.violation = Violation(field, description)


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
    twice fires once. Expressions with `*` for the minute or the hour fire by elapsed time instead.
    """

    expression: str
    zone: zoneinfo.ZoneInfo

    def first(self, now: datetime) -> datetime | None:
        return self.after(now)

    def after(self, instant: datetime) -> datetime | None:
        try:
            return next(CronSim(self.expression, instant.astimezone(self.zone))).astimezone(UTC)
        except StopIteration:
            return None


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
    """The schedule that the three fields describe. Raises ScheduleFault."""
    zone = _zone(timezone)
    if kind is ScheduleKind.MANUAL:
        if expression:
            raise ScheduleFault("schedule_expr", "must be empty for a manual task: it has no schedule")
        return Never()
    if not expression:
        raise ScheduleFault("schedule_expr", f"is required for schedule_kind {kind}")
    return _cron(expression, zone) if kind is ScheduleKind.CRON else _once(expression, zone)


def due_times(schedule: Schedule, since: datetime, now: datetime) -> list[datetime]:
    """The nominal times from `since` (itself one) until `now`, oldest first.

    Times that are older than the misfire window are represented by the first of them alone.
    """
    times = [since]
    instant: datetime | None = max(since, now - MISFIRE_WINDOW)
    while instant is not None and (instant := schedule.after(instant)) is not None and instant <= now:
        times.append(instant)
    return times[:1] + times[1:][-MAX_DUE:]


def _zone(timezone: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        description = f"{timezone!r} is not an IANA timezone: use a name such as UTC or Europe/Chisinau"
        raise ScheduleFault("timezone", description) from None


def _cron(expression: str, zone: zoneinfo.ZoneInfo) -> Cron:
    fields = _ALIASES.get(expression.strip().lower(), expression.strip())
    if fields.startswith("@"):
        raise ScheduleFault("schedule_expr", f"{expression!r} is not an alias: use one of {', '.join(_ALIASES)}")
    try:
        CronSim(fields, datetime(2000, 1, 1, tzinfo=zone))
    except CronSimError as error:
        description = f"{expression!r} is not a cron expression ({str(error).lower()}): use 5 or 6 fields"
        raise ScheduleFault("schedule_expr", description) from None
    return Cron(fields, zone)


def _once(expression: str, zone: zoneinfo.ZoneInfo) -> Once:
    try:
        instant = datetime.fromisoformat(expression)
    except ValueError:
        description = f"{expression!r} is not an instant: use RFC 3339, such as 2026-12-24T18:00:00+02:00"
        raise ScheduleFault("schedule_expr", description) from None
    try:
        return Once((instant if instant.tzinfo else instant.replace(tzinfo=zone)).astimezone(UTC))
    except OverflowError:
        raise ScheduleFault("schedule_expr", f"{expression!r} is out of range") from None
