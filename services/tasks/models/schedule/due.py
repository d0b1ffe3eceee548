"""Which nominal times have come, looked at late."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import takewhile

from services.tasks.models.schedule.reading import Schedule

# A nominal time that is later than this is not made up for.
WINDOW = timedelta(hours=1)
# How late a time may be noticed where late ones are not made up for.
GRACE = timedelta(seconds=30)
# So many nominal times of one task are judged one by one: the newest.
CAP = 100
_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Span:
    """All nominal times from the first to the last, both included."""

    first: datetime
    last: datetime


@dataclass(frozen=True)
class Due:
    """The nominal times of a schedule that have come, and the one that comes next."""

    passed: list[Span]
    """Those that are too late or too many, oldest first: none of them runs."""
    times: list[datetime]
    """The others, oldest first."""
    following: datetime | None
    snoozed: Span | None = None
    """Those that a snooze has carried along: the schedule named them while the time before them waited."""


def due_times(
    schedule: Schedule,
    since: datetime,
    now: datetime,
    *,
    fire_at: datetime | None = None,
    border: datetime | None = None,
) -> Due:
    """The nominal times from `since`, itself one, until `now`.

    `since` fires at `fire_at` when it was snoozed, and is late from then on: it stands for the times before `fire_at`.
    No span reaches over the `border`. However many times have passed, a few hundred are looked at.
    """
    if fire_at is None or fire_at <= since:
        return _due(schedule, since, now, border)
    resumed = schedule.after(fire_at - _MICROSECOND)
    later = Due([], [], resumed) if resumed is None or resumed > now else _due(schedule, resumed, now, border)
    following = _after(schedule, since)
    carried = None if following is None or following >= fire_at else _span(schedule, following, fire_at)
    if now - fire_at > WINDOW:
        return replace(later, passed=[Span(since, since), *later.passed], snoozed=carried)
    return replace(later, times=[since, *later.times], snoozed=carried)


def _due(schedule: Schedule, since: datetime, now: datetime, border: datetime | None) -> Due:
    """The same where nothing was snoozed."""
    following = _after(schedule, since)
    if (following is None or following > now) and now - since <= WINDOW:
        return Due([], [since], following)
    times = _newest(schedule, since, now)
    stands_alone = now - since <= WINDOW and len(times) < CAP
    first_passed = following if stands_alone else since
    passed = _passed(schedule, first_passed, times[0] if times else now + _MICROSECOND, border)
    return Due(passed, [since, *times] if stands_alone else times, schedule.after(now))


# Of ten thousand tasks that are due in the same second, most have the same few schedules.
@lru_cache(1024)
def _after(schedule: Schedule, instant: datetime) -> datetime | None:
    return schedule.after(instant)


def _newest(schedule: Schedule, since: datetime, now: datetime) -> list[datetime]:
    """The newest times after `since` that are in the window, oldest first: looked for further and further back."""
    reach = timedelta(seconds=CAP)
    while True:
        start = max(since, now - reach - _MICROSECOND)
        times = list(takewhile(lambda time: time <= now, schedule.upcoming(start)))
        if len(times) >= CAP or reach >= WINDOW or start == since:
            return times[-CAP:]
        reach = min(4 * reach, WINDOW)


def _passed(schedule: Schedule, first: datetime | None, end: datetime, border: datetime | None) -> list[Span]:
    """The times from `first` to before `end`, in two spans when the border lies between them."""
    if first is None or first >= end:
        return []
    if border is None or not first < border < end:
        return [_span(schedule, first, end)]
    return [_span(schedule, first, border), *_passed(schedule, schedule.after(border - _MICROSECOND), end, None)]


def _span(schedule: Schedule, first: datetime, end: datetime) -> Span:
    """The times from `first`, itself one, to before `end`."""
    return Span(first, _last_before(schedule, first, end))


def _last_before(schedule: Schedule, first: datetime, end: datetime) -> datetime:
    """The last time before `end`; `first` is one."""
    following = _after(schedule, first)
    if following is None or following >= end:
        # Of times that are years apart: finding none is what takes long, and would be done again and again below.
        return first
    found, nothing_since = following, end
    while nothing_since - found >= _SECOND:
        middle = found + (nothing_since - found) / 2
        following = schedule.after(middle)
        if following is not None and following < end:
            found = following
        else:
            nothing_since = middle
    return found
