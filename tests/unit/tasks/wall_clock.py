"""What schedules ought to do when clocks change, found out by watching a clock minute by minute.

Knows nothing of cronsim, dateutil or our own code: only UTC, and what the clocks of a zone show.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ZONES = ("UTC", "Europe/Chisinau", "America/New_York", "Australia/Lord_Howe")
BEGIN, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
Matches = Callable[[datetime], bool]


@dataclass(frozen=True)
class Minute:
    """One minute that passes."""

    at: datetime
    shown: datetime
    """What clocks show, without zone."""
    again: bool
    """They have shown it before."""
    skipped: list[datetime]
    """What they ought to have shown since the minute before, and did not."""


@cache
def changes(zone: str) -> list[datetime]:
    """The first minute after each change of the clocks, 2024 to 2035; where there is none, each new year."""
    local, found, at = ZoneInfo(zone), [], BEGIN
    while at < END:
        if at.astimezone(local).utcoffset() != (at + DAY).astimezone(local).utcoffset():
            times = _minutes(at, at + DAY)
            found.append(next(now for now in times if _shown(now, local) - _shown(now - MINUTE, local) != MINUTE))
        at += DAY
    return found or [datetime(year, 1, 1, tzinfo=UTC) for year in range(2024, 2036)]


@cache
def around(change: datetime, zone: str) -> list[Minute]:
    """The 48 hours around a change. What clocks showed in the three hours before is taken into account."""
    local, since = ZoneInfo(zone), change - DAY
    minutes, seen = [], set[datetime]()
    before = _shown(since - 3 * HOUR - MINUTE, local)
    for at in _minutes(since - 3 * HOUR, change + DAY):
        shown = _shown(at, local)
        skipped = [shown - late * MINUTE for late in range((shown - before) // MINUTE - 1, 0, -1)]
        minutes.append(Minute(at, shown, shown in seen, skipped))
        seen.add(shown)
        before = shown
    return [minute for minute in minutes if minute.at >= since]


def fixed(minutes: Sequence[Minute], matches: Matches) -> list[datetime]:
    """When times of day fire: once, the first time; those that clocks skip, together at the first minute after."""
    return [
        minute.at
        for minute in minutes
        if (not minute.again and matches(minute.shown)) or (minute.skipped and any(map(matches, minute.skipped)))
    ]


def shown(minutes: Sequence[Minute], matches: Matches) -> list[datetime]:
    """When what fires every so often does: whenever clocks show a time that matches."""
    return [minute.at for minute in minutes if matches(minute.shown)]


def elapsed(minutes: Sequence[Minute], since: datetime, every: timedelta, matches: Matches) -> list[datetime]:
    """When what counts hours and minutes fires, of those times at which clocks show one that matches."""
    return [minute.at for minute in minutes if (minute.at - since) % every == 0 * DAY and matches(minute.shown)]


def cron_fires(expression: str, minutes: Sequence[Minute]) -> list[datetime]:
    """When a five-field cron expression fires.

    An hour with a star means whenever clocks show a time that matches; without, it names times of day. Days are named
    twice: where one of the two fields has a star in front both have to agree, and otherwise either will do.
    """
    minute, hour, month_day, month, weekday = expression.split()
    minutes_of_hour, hours, months = _field(minute, 0, 59), _field(hour, 0, 23), _field(month, 1, 12)
    month_days, weekdays = _field(month_day, 1, 31), {day % 7 for day in _field(weekday, 0, 7)}
    needed = 2 if "*" in (month_day[0], weekday[0]) else 1

    def matches(shown: datetime) -> bool:
        if shown.minute not in minutes_of_hour or shown.hour not in hours or shown.month not in months:
            return False
        return [shown.day in month_days, shown.isoweekday() % 7 in weekdays].count(True) >= needed

    likely = [one for one in minutes if one.shown.minute in minutes_of_hour or one.skipped]
    return shown(likely, matches) if hour[0] == "*" else fixed(likely, matches)


def _field(text: str, lowest: int, highest: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        numbers, _, step = part.partition("/")
        first, _, last = numbers.partition("-")
        low, high = (lowest, highest) if numbers == "*" else (int(first), int(last or (highest if step else first)))
        found.update(range(low, high + 1, int(step or 1)))
    return found


def _minutes(since: datetime, until: datetime) -> Iterator[datetime]:
    while since < until:
        yield since
        since += MINUTE


def _shown(at: datetime, zone: ZoneInfo) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None)
