"""Recurrence rules in a timezone."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from functools import cached_property
from itertools import islice, product

from services.tasks.models.schedule.days import Days
from services.tasks.models.schedule.elapsed import Elapsed
from services.tasks.models.schedule.fault import Unreadable
from services.tasks.models.schedule.rule import Frequency, Rule
from services.tasks.models.schedule.wall_clock import SECOND, instants_of, shown_at

# Nobody looks further ahead than this: half a century.
_HORIZON = timedelta(days=18_263)
# What is counted has to run out within this, so that counting never takes longer than a fraction of a second.
MAX_YEARS_COUNTED = 30
_COUNTED = timedelta(days=10_958)


@dataclass(frozen=True)
class Recurrence:
    """A recurrence rule that begins at `start`.

    By the day, week, month and year it goes by what clocks show: a local time that a clock change skips fires once,
    at the first instant after the gap; one that happens twice fires once, the first time. By the hour, minute and
    second it goes by elapsed time: see `Elapsed`.
    """

    rule: Rule
    start: datetime
    begin: datetime
    """All times are after this: the start itself is one of them, or it is not."""
    until: datetime | None
    """None of them is after this, which is where the COUNT runs out if the rule has one."""
    except_at: frozenset[datetime]
    except_on: frozenset[date]
    zone: tzinfo

    def first(self, now: datetime) -> datetime | None:
        return self.after(now)

    def after(self, instant: datetime) -> datetime | None:
        return next(self.upcoming(instant), None)

    def upcoming(self, instant: datetime) -> Iterator[datetime]:
        try:
            for found in self._times(max(instant, self.begin)):
                if self.until is not None and found > self.until:
                    return
                if found not in self.except_at and shown_at(found, self.zone).date() not in self.except_on:
                    yield found
        except OverflowError:
            return  # where the calendar ends

    def named(self, instant: datetime) -> datetime | None:
        if self._elapses:
            return None
        # What clocks would show had they not changed just now: all that is skipped lies from there on.
        return next(self._walls(shown_at(instant - SECOND, self.zone) + SECOND), None)

    def counted(self, count: int) -> datetime:
        """The last of so many times, those that are left out among them. Raises Unreadable for too many years."""
        last = self.begin
        for last in islice(self._times(self.begin), count):
            if last - self.begin > _COUNTED:
                raise Unreadable(
                    f"has COUNT={count}, which does not run out within {MAX_YEARS_COUNTED} years of its start: "
                    "use a smaller COUNT, or UNTIL"
                )
        return last

    @property
    def _elapses(self) -> bool:
        return self.rule.frequency >= Frequency.HOURLY

    def _times(self, after: datetime) -> Iterator[datetime]:
        """The times strictly after an instant, whatever ends the rule or is left out of it."""
        if self._elapses:
            return self._elapsed.times(after)
        return instants_of(self._walls(shown_at(after, self.zone)), after, self.zone)

    def _walls(self, since: datetime) -> Iterator[datetime]:
        """The local times from `since` on that match."""
        for days in self._days.periods(since.date(), since.date() + min(_HORIZON, date.max - since.date())):
            yield from self._in(days, since)

    def _in(self, days: Sequence[date], since: datetime) -> Iterator[datetime]:
        """The local times from `since` on that match, in a period with these days."""
        if self.rule.positions:
            yield from (wall for wall in self._chosen(days) if wall >= since)
            return
        for day in days[bisect_left(days, since.date()) :]:
            yield from (wall for wall in (datetime.combine(day, at) for at in self._times_of_day) if wall >= since)

    def _chosen(self, period: Sequence[date]) -> list[datetime]:
        """Those of the times of a period that are asked for by their position."""
        times, count = self._times_of_day, len(period) * len(self._times_of_day)
        places = {position - 1 if position > 0 else count + position for position in self.rule.positions}
        return [
            datetime.combine(period[place // len(times)], times[place % len(times)])
            for place in sorted(places)
            if 0 <= place < count
        ]

    @cached_property
    def _elapsed(self) -> Elapsed:
        return Elapsed(self.rule, self.start, self.zone)

    @cached_property
    def _days(self) -> Days:
        return Days(self.rule, shown_at(self.start, self.zone).date())

    @cached_property
    def _times_of_day(self) -> list[time]:
        return [time(*at) for at in product(self.rule.hours, self.rule.minutes, self.rule.seconds)]
