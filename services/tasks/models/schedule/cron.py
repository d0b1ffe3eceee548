"""Cron expressions."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from cronsim import CronSim, CronSimError

from services.tasks.models.schedule.fault import Unreadable, require
from services.tasks.models.schedule.wall_clock import SECOND, instants_of, next_change, shown_at
from services.tasks.models.task import ScheduleKind

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = {
    "second": "0-59",
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, L or LW",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT, 1#2 for a second Monday, 5L for a last Friday",
}
_STEP_OF_ONE = re.compile(r"(?<![^\s,])0*(\w+)-0*\1/0*[1-9]\d*(?![^\s,])")


@dataclass(frozen=True)
class Cron:
    """A cron expression in a timezone.

    Where the hour is named, a local time that a clock change skips fires once, at the first instant after the gap,
    and one that happens twice fires once, the first time. Where the hour begins with `*` the expression means every so
    often, and fires whenever clocks show a time that matches: twice what happens twice, and not what is skipped.
    Neither the minute, nor whether there are seconds, makes a difference to that.
    """

    expression: str
    zone: tzinfo

    def first(self, now: datetime) -> datetime | None:
        return self.after(now)

    def after(self, instant: datetime) -> datetime | None:
        return next(self.upcoming(instant), None)

    def upcoming(self, instant: datetime) -> Iterator[datetime]:
        if self._is_wild:
            return self._shown(instant)
        return instants_of(CronSim(self.expression, shown_at(instant, self.zone)), instant, self.zone)

    def named(self, instant: datetime) -> datetime | None:
        if self._is_wild:
            return None
        # What clocks would show had they not changed just now: all that is skipped lies from there on.
        before = shown_at(instant - SECOND, self.zone)
        return next(CronSim(self.expression, before), None)

    @property
    def _is_wild(self) -> bool:
        *_, hour, _, _, _ = self.expression.split()
        return hour.startswith("*")

    # CronSim is only ever shown wall clocks that know no zone: it minds clock changes too, but differently for
    # expressions of 5 and of 6 fields, and not for changes of half an hour.

    def _shown(self, instant: datetime) -> Iterator[datetime]:
        wall = shown_at(instant, self.zone)
        offset = wall - instant.astimezone(UTC).replace(tzinfo=None)
        walls = CronSim(self.expression, wall)
        while (match := next(walls, None)) is not None:
            found = (match - offset).replace(tzinfo=UTC)
            while change := next_change(instant, found, self.zone):
                # Clocks show something else before that: the moment of the change is looked at anew.
                shown = shown_at(change, self.zone)
                instant, offset = change, shown - change.replace(tzinfo=None)
                if not wall < shown <= match:
                    walls = CronSim(self.expression, shown - SECOND)
                    if (again := next(walls, None)) is None:
                        return
                    match = again
                wall, found = shown - SECOND, (match - offset).replace(tzinfo=UTC)
            instant, wall = found, match
            yield found


def read_cron(expression: str, zone: tzinfo, anchor: datetime) -> Cron:
    """An expression of 5 or 6 fields, or an alias. Raises Unreadable."""
    require(expression, ScheduleKind.CRON)
    fields = _ALIASES.get(expression.lower(), expression)
    if fields.startswith("@"):
        raise Unreadable(f"{expression!r} is not an alias: use one of {', '.join(_ALIASES)}")
    # A step of one number's range leads nowhere; CronSim takes it for one that begins there.
    fields = _STEP_OF_ONE.sub(r"\1", fields.upper())
    try:
        CronSim(fields, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise Unreadable(f"{expression!r} is not a cron expression: {_fault(expression.split(), str(error))}") from None
    return Cron(fields, zone)


def _fault(fields: list[str], error: str) -> str:
    """What is wrong with fields that CronSim does not read, and what to do."""
    name = error.lower().removeprefix("bad ")
    if name not in _FIELDS:
        return f"its fields are {len(fields)}: use 5, or 6 with seconds first"
    *_, day, month, _ = fields
    if name == "day-of-month" and _is_readable(day):
        return f"no month of {month!r} has a day {day!r}: use another day or month"
    text = fields[list(_FIELDS).index(name) - len(_FIELDS)]
    return f"its {name} is {text!r}: use {_FIELDS[name]}, or *, a list 1,2, a range 1-2 or a step */2"


def _is_readable(day: str) -> bool:
    """Whether days can be read, if not in every month."""
    try:
        CronSim(f"0 0 {day} * *", datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError:
        return False
    return True
