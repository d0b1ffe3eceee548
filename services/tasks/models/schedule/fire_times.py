"""The times at which a schedule will fire, as people read them."""

from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import islice

from services.tasks.models.schedule.reading import Schedule
from services.tasks.models.schedule.wall_clock import comes_twice, shown_at, zone_named


@dataclass(frozen=True)
class FireTime:
    """A time at which a schedule will fire."""

    at: datetime
    local: str
    """What clocks in the task's timezone show: `2026-03-29T03:00:00`."""
    offset: str
    """The zone's offset from UTC at that time: `+03:00`."""
    note: str
    """What a change of the clocks did to this time, or what would become of one that has passed; empty when nothing."""


def fire_times(schedule: Schedule, timezone: str, after: datetime, count: int) -> list[FireTime]:
    """The next times strictly after an instant, `count` at most, in a timezone that there is."""
    zone = zone_named(timezone)
    assert zone is not None
    return [fire_time(schedule, zone, at) for at in islice(schedule.upcoming(after), count)]


def fire_time(schedule: Schedule, zone: tzinfo, at: datetime) -> FireTime:
    """One of the times of a schedule."""
    local = at.astimezone(zone)
    shown = local.replace(tzinfo=None).isoformat(timespec="seconds")
    return FireTime(at, shown, local.isoformat()[-6:], _note(schedule, zone, at))


def _note(schedule: Schedule, zone: tzinfo, at: datetime) -> str:
    shown, named = shown_at(at, zone), schedule.named(at)
    if named is not None and named != shown:
        return f"{_time_of_day(named)} does not exist that day: fires when clocks have sprung forward"
    if not comes_twice(at, zone):
        return ""
    time = "second" if at.astimezone(zone).fold else "first"
    verb = "this is" if named is None else "fires"
    return f"{_time_of_day(shown)} happens twice that day: {verb} the {time} time"


def _time_of_day(local: datetime) -> str:
    return local.time().isoformat(timespec="seconds" if local.second else "minutes")
