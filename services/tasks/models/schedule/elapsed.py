"""Recurrences by the hour, minute or second: by elapsed time, whatever the clocks do."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from functools import cached_property
from itertools import product
from math import gcd

from services.tasks.models.schedule.days import Days
from services.tasks.models.schedule.rule import Frequency, Rule
from services.tasks.models.schedule.wall_clock import instant_of, next_change, shown_at

# Times that are further apart than this are not looked for: 29 February comes after eight years at most.
_HORIZON = timedelta(days=3660)
_DAY = timedelta(days=1)
_SECONDS = {Frequency.HOURLY: 3600, Frequency.MINUTELY: 60, Frequency.SECONDLY: 1}


@dataclass(frozen=True)
class Elapsed:
    """Every `interval` hours, minutes or seconds from `start`, where clocks then show what the rule asks for.

    An hour is an hour: the day on which clocks go back has 25 of them. The parts that are finer than the frequency
    choose times within each hour or minute.
    """

    rule: Rule
    start: datetime
    zone: tzinfo

    def times(self, after: datetime) -> Iterator[datetime]:
        """The times strictly after an instant, in order."""
        if not self._is_possible:
            return
        step = self._step
        beat = self.start + max(0, (after - self.start) // step) * step
        try:
            until = beat + _HORIZON
            while beat <= until:
                shown = shown_at(beat, self.zone)
                if rest := self._rest(beat, shown):
                    beat += -(-rest // step) * step
                    continue
                for found in self._within(beat, shown):
                    if found > after:
                        after, until = found, found + _HORIZON
                        yield found
                beat += step
        except OverflowError:
            return

    def _rest(self, beat: datetime, shown: datetime) -> timedelta:
        """How long nothing can match; zero when something in this hour, minute or second may."""
        rule = self.rule
        if not self._days.match(shown.date()):
            return instant_of(datetime.combine(shown.date() + _DAY, time()), self.zone) - beat
        if rule.hours and shown.hour not in rule.hours:
            return timedelta(hours=1) - timedelta(minutes=shown.minute, seconds=shown.second)
        if rule.frequency >= Frequency.MINUTELY and rule.minutes and shown.minute not in rule.minutes:
            return timedelta(minutes=1) - timedelta(seconds=shown.second)
        if rule.frequency is Frequency.SECONDLY and rule.seconds and shown.second not in rule.seconds:
            return timedelta(seconds=1)
        return timedelta()

    def _within(self, beat: datetime, shown: datetime) -> Iterator[datetime]:
        """The times in the hour, minute or second of a beat."""
        frequency = self.rule.frequency
        minutes = self.rule.minutes if frequency is Frequency.HOURLY and self.rule.minutes else (shown.minute,)
        seconds = self.rule.seconds if frequency <= Frequency.MINUTELY and self.rule.seconds else (shown.second,)
        for minute, second in product(minutes, seconds):
            found = beat + timedelta(minutes=minute - shown.minute, seconds=second - shown.second)
            # Clocks may have changed in between.
            if self._matches(there := shown_at(found, self.zone)) and (there.minute, there.second) == (minute, second):
                yield found

    def _matches(self, shown: datetime) -> bool:
        return self._days.match(shown.date()) and (not self.rule.hours or shown.hour in self.rule.hours)

    @cached_property
    def _days(self) -> Days:
        return Days(self.rule, shown_at(self.start, self.zone).date())

    @property
    def _step(self) -> timedelta:
        return timedelta(seconds=self.rule.interval * _SECONDS[self.rule.frequency])

    @cached_property
    def _is_possible(self) -> bool:
        """Whether the interval ever meets one of the times of day that are asked for.

        Every second minute from an even one is never an odd one, however long it is looked for.
        """
        rule, unit = self.rule, _SECONDS[self.rule.frequency]
        hours = rule.hours or range(24)
        minutes = (rule.minutes or range(60)) if unit <= 60 else (0,)
        seconds = (rule.seconds or range(60)) if unit == 1 else (0,)
        common = gcd(rule.interval * unit, 86_400)
        reached = {start // unit * unit % common for start in self._starts()}
        return any(
            (hour * 3600 + minute * 60 + second) % common in reached
            for hour, minute, second in product(hours, minutes, seconds)
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
