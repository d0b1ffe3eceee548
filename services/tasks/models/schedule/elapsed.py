"""Recurrences by the hour, minute or second: by elapsed time, whatever the clocks do."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from functools import cached_property
from itertools import product
from math import gcd

from services.tasks.models.schedule.days import Days
from services.tasks.models.schedule.rule import Frequency, Rule
from services.tasks.models.schedule.wall_clock import SECOND, instant_of, next_change, shown_at

# Times that are further apart than this are not looked for: 29 February comes after eight years at most.
_HORIZON = timedelta(days=3660)
_DAY = timedelta(days=1)
_SECONDS_A_DAY = 86_400
_SECONDS = {Frequency.HOURLY: 3600, Frequency.MINUTELY: 60, Frequency.SECONDLY: 1}
# So many units of a day are kept in memory; more are met so often that nobody needs to look for them.
_MANY = 4096


@dataclass(frozen=True)
class _Stretch:
    """A part of a day in which clocks do not change, in seconds of that day."""

    begin: datetime
    first: int
    end: int
    phase: int
    """A beat comes at this second, and every step before and after it."""

    def instant(self, second: int) -> datetime:
        return self.begin + timedelta(seconds=second - self.first)


@dataclass(frozen=True)
class Elapsed:
    """Every `interval` hours, minutes or seconds from `start`, where clocks then show what the rule asks for.

    An hour is an hour: the day on which clocks go back has 25 of them. The parts that are finer than the frequency
    choose times within each hour or minute.

    A beat is what the interval alone would make. Its unit is the hour, minute or second that it lies in.
    """

    rule: Rule
    start: datetime
    zone: tzinfo

    def times(self, after: datetime) -> Iterator[datetime]:
        """The times strictly after an instant, in order. Raises OverflowError at the end of the calendar."""
        if not self._is_possible:
            return
        day, found = shown_at(after, self.zone).date(), after
        while day - found.date() <= _HORIZON:
            if self._days.match(day):
                for found in self._on(day, after):
                    yield found
            day = self._day_after(day)

    def _day_after(self, day: date) -> date:
        """The next day that can have a beat."""
        if self._step <= _SECONDS_A_DAY:
            return day + _DAY
        midnight = instant_of(datetime.combine(day + _DAY, time()), self.zone)
        return shown_at(midnight + (self.start - midnight) % timedelta(seconds=self._step), self.zone).date()

    def _on(self, day: date, after: datetime) -> Iterator[datetime]:
        """The times of a day that are after an instant."""
        for stretch in self._stretches(day):
            since = max(stretch.first, stretch.first + (after - stretch.begin) // SECOND)
            for beat in self._beats(stretch, since):
                for second in self._within(beat):
                    if stretch.first <= second < stretch.end and (found := stretch.instant(second)) > after:
                        yield found

    def _stretches(self, day: date) -> Iterator[_Stretch]:
        # No zone sets its clocks back to the day before once they have shown the next one.
        midnight = datetime.combine(day, time())
        begin, end = instant_of(midnight, self.zone), instant_of(midnight + _DAY, self.zone)
        while begin < end:
            until = next_change(begin, end, self.zone) or end
            first = (shown_at(begin, self.zone) - midnight) // SECOND
            phase = first + (self.start - begin) // SECOND
            yield _Stretch(begin, first, first + (until - begin) // SECOND, phase)
            begin = until

    def _beats(self, stretch: _Stretch, since: int) -> Iterator[int]:
        """The beats of a stretch, from the unit of `since` on, whose unit the rule lets through."""
        since -= since % self._unit
        if self._units is None:
            return filter(self._lets_through, self._beats_by_the_hour(stretch, max(since, stretch.first)))
        units, unit, step, phase = self._units[bisect_left(self._units, since) :], self._unit, self._step, stretch.phase
        beats = [begin + rest for begin in units if (rest := (phase - begin) % step) < unit]
        return (beat for beat in beats if stretch.first <= beat < stretch.end)

    def _beats_by_the_hour(self, stretch: _Stretch, since: int) -> Iterator[int]:
        """The beats of a stretch from a second on, in the hours that the rule lets through."""
        for hour in range(since // 3600, 24):
            if not self.rule.hours or hour in self.rule.hours:
                begin = max(since, hour * 3600)
                first = begin + (stretch.phase - begin) % self._step
                yield from range(first, min(stretch.end, (hour + 1) * 3600), self._step)

    def _lets_through(self, beat: int) -> bool:
        """Whether the minute and the second of a beat are asked for, where they are not chosen within its unit."""
        minutes, seconds = self.rule.minutes, self.rule.seconds
        return (self._unit == 3600 or not minutes or beat // 60 % 60 in minutes) and (
            self._unit > 1 or not seconds or beat % 60 in seconds
        )

    def _within(self, beat: int) -> Iterator[int]:
        """The times in the unit of a beat."""
        rule, unit = self.rule, self._unit
        hour, minute, second = beat // 3600, beat // 60 % 60, beat % 60
        minutes = rule.minutes if unit == 3600 and rule.minutes else (minute,)
        seconds = rule.seconds if unit >= 60 and rule.seconds else (second,)
        return (hour * 3600 + minute * 60 + second for minute, second in product(minutes, seconds))

    @cached_property
    def _days(self) -> Days:
        return Days(self.rule, shown_at(self.start, self.zone).date())

    @cached_property
    def _unit(self) -> int:
        return _SECONDS[self.rule.frequency]

    @cached_property
    def _step(self) -> int:
        return self.rule.interval * self._unit

    @cached_property
    def _units(self) -> list[int] | None:
        """The units of a day that the rule lets through, or None where beats are fewer, or units many.

        Whichever is looked at, a time is found after a few hundred of them and some days.
        """
        hours, minutes, seconds = self._parts
        count = len(hours) * len(minutes) * len(seconds)
        if count > min(_MANY, _SECONDS_A_DAY // self._step):
            return None
        return [hour * 3600 + minute * 60 + second for hour, minute, second in product(hours, minutes, seconds)]

    @property
    def _parts(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """The hours, minutes and seconds at which a unit that the rule lets through begins."""
        rule = self.rule
        minutes = (rule.minutes or range(60)) if self._unit <= 60 else (0,)
        seconds = (rule.seconds or range(60)) if self._unit == 1 else (0,)
        return rule.hours or range(24), minutes, seconds

    @cached_property
    def _is_possible(self) -> bool:
        """Whether the interval ever meets one of the times of day that are asked for.

        Every second minute from an even one is never an odd one, however long it is looked for.
        """
        unit, common = self._unit, gcd(self._step, _SECONDS_A_DAY)
        reached = {start // unit * unit % common for start in self._starts()}
        return any(
            (hour * 3600 + minute * 60 + second) % common in reached for hour, minute, second in product(*self._parts)
        )

    def _starts(self) -> Iterator[int]:
        """The second of the day at which the start would be, with each offset from UTC that the zone soon has."""
        instant: datetime | None = self.start
        until = self.start + _HORIZON
        while instant is not None:
            offset = shown_at(instant, self.zone) - instant.replace(tzinfo=None)
            shown = self.start.replace(tzinfo=None) + offset
            yield shown.hour * 3600 + shown.minute * 60 + shown.second
            instant = next_change(instant, until, self.zone)
