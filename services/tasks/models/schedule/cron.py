"""Cron expressions."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from cronsim import CronSim, CronSimError

from services.tasks.models.schedule.fault import Unreadable, require
from services.tasks.models.schedule.wall_clock import SECOND, instant_of, next_change, shown_at
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


@dataclass(frozen=True)
class Cron:
    """A cron expression in a timezone.

    A local time that a clock change skips fires once, at the first instant after the gap; one that happens
    twice fires once, the first time. Expressions with `*` for the minute or the hour fire whenever clocks show a
    time that matches instead: twice where it happens twice, and not where it is skipped.
    """

    expression: str
    zone: tzinfo

    def first(self, now: datetime) -> datetime | None:
        return self.after(now)

    def after(self, instant: datetime) -> datetime | None:
        return next(self.upcoming(instant), None)

    def upcoming(self, instant: datetime) -> Iterator[datetime]:
        return self._shown(instant) if self._is_wild else self._fixed(instant)

    def named(self, instant: datetime) -> datetime | None:
        if self._is_wild:
            return None
        # What clocks would show had they not changed just now: all that is skipped lies from there on.
        before = shown_at(instant - SECOND, self.zone)
        return next(CronSim(self.expression, before), None)

    @property
    def _is_wild(self) -> bool:
        *_, minute, hour, _, _, _ = self.expression.split()
        return minute.startswith("*") or hour.startswith("*")

    # CronSim is only ever shown wall clocks that know no zone: it minds clock changes too, but differently for
    # expressions of 5 and of 6 fields, and not for changes of half an hour.

    def _fixed(self, instant: datetime) -> Iterator[datetime]:
        latest = instant
        for wall in CronSim(self.expression, shown_at(instant, self.zone)):
            # Where an hour happens twice, clocks go back: what they show next may have been. In a gap, several of
            # the times come together.
            if (found := instant_of(wall, self.zone)) > latest:
                latest = found
                yield found

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
    try:
        CronSim(fields, datetime(2000, 1, 1, tzinfo=zone))
    except CronSimError as error:
        description = f"{expression!r} is not a cron expression ({str(error).lower()}): use 5 or 6 fields"
        raise Unreadable(description) from None
    return Cron(fields, zone)
