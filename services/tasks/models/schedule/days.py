"""The days that a recurrence rule lets through."""

from calendar import isleap, monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from services.tasks.models.schedule.rule import Frequency, Rule

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Days:
    """Which days match a rule, and how its periods of a day or more follow each other."""

    rule: Rule
    start: date

    def periods(self, since: date, until: date) -> Iterator[list[date]]:
        """The days of each period that match, from the period that `since` lies in, to the last that begins by `until`.

        Only every `interval`th period counts, from that of the start.
        """
        interval = self.rule.interval
        number = max(0, self._period_of(since) // interval) * interval
        while (bounds := self._bounds(number)) and bounds[0] <= until:
            yield [day for day in _from_to(*bounds) if self.match(day)]
            number += interval

    def match(self, day: date) -> bool:
        """Whether every part that the rule has lets a day through."""
        rule = self.rule
        return (
            (not rule.months or day.month in rule.months)
            and (not rule.month_days or _counts(day.day, monthrange(day.year, day.month)[1], rule.month_days))
            and (not rule.weekdays or self._is_weekday(day))
            and (not rule.year_days or _counts(_day_of_year(day), _length_of_year(day), rule.year_days))
            and (not rule.week_numbers or _counts(*_week_of_year(day, rule.week_start), rule.week_numbers))
        )

    def _is_weekday(self, day: date) -> bool:
        weekday = day.weekday()
        return any(
            wanted == weekday and (not which or self._is_which(day, which)) for which, wanted in self.rule.weekdays
        )

    def _is_which(self, day: date, which: int) -> bool:
        """Whether a day is the first, second or last of its weekday in its month or, of a yearly rule, in its year."""
        if self.rule.frequency is Frequency.MONTHLY or self.rule.months:
            position, length = day.day, monthrange(day.year, day.month)[1]
        else:
            position, length = _day_of_year(day), _length_of_year(day)
        return which == ((position - 1) // 7 + 1 if which > 0 else -((length - position) // 7 + 1))

    def _period_of(self, day: date) -> int:
        """The number of the period that a day lies in; the start lies in 0."""
        match self.rule.frequency:
            case Frequency.YEARLY:
                return day.year - self.start.year
            case Frequency.MONTHLY:
                return 12 * (day.year - self.start.year) + day.month - self.start.month
            case Frequency.WEEKLY:
                return (day - _start_of_week(self.start, self.rule.week_start)).days // 7
            case _:
                return (day - self.start).days

    def _bounds(self, number: int) -> tuple[date, date] | None:
        """The first and the last day of a period, or None beyond the calendar."""
        try:
            match self.rule.frequency:
                case Frequency.YEARLY:
                    return date(self.start.year + number, 1, 1), date(self.start.year + number, 12, 31)
                case Frequency.MONTHLY:
                    years, month = divmod(self.start.month - 1 + number, 12)
                    year = self.start.year + years
                    return date(year, month + 1, 1), date(year, month + 1, monthrange(year, month + 1)[1])
                case Frequency.WEEKLY:
                    first = _start_of_week(self.start, self.rule.week_start) + number * 7 * _DAY
                    return first, first + 6 * _DAY
                case _:
                    return (day := self.start + number * _DAY), day
        except (OverflowError, ValueError):
            return None


def _from_to(first: date, last: date) -> Iterator[date]:
    return map(date.fromordinal, range(first.toordinal(), last.toordinal() + 1))


def _counts(position: int, length: int, wanted: tuple[int, ...]) -> bool:
    """Whether a position is wanted, counted from 1 or, backwards, from -1."""
    return position in wanted or position - length - 1 in wanted


def _day_of_year(day: date) -> int:
    return day.toordinal() - date(day.year, 1, 1).toordinal() + 1


def _length_of_year(day: date) -> int:
    return 366 if isleap(day.year) else 365


def _start_of_week(day: date, week_start: int) -> date:
    return day - (day.weekday() - week_start) % 7 * _DAY


def _week_of_year(day: date, week_start: int) -> tuple[int, int]:
    """The number of a day's week and how many its year has. A week is of the year that most of its days are in."""
    middle = _start_of_week(day, week_start) + 3 * _DAY
    last = _start_of_week(date(middle.year, 12, 28), week_start) + 3 * _DAY
    return (_day_of_year(middle) - 1) // 7 + 1, (_day_of_year(last) - 1) // 7 + 1
