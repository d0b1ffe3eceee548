"""What clocks on the wall show in a timezone, and when they show it."""

import zoneinfo
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo

SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)
# No zone changes its clocks twice within this.
_BETWEEN_CHANGES = timedelta(days=7)


def zone_named(timezone: str) -> tzinfo | None:
    """The IANA timezone of this name."""
    try:
        return zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def shown_at(instant: datetime, zone: tzinfo) -> datetime:
    """What clocks show at an instant: a datetime without zone."""
    return instant.astimezone(zone).replace(tzinfo=None)


def instant_of(wall: datetime, zone: tzinfo) -> datetime:
    """When clocks show `wall`: the first of two times, or the first instant after the gap that swallowed it."""
    instant = wall.replace(tzinfo=zone).astimezone(UTC)
    if shown_at(instant, zone) == wall:
        return instant
    # In a gap, `fold` tells which of the two offsets is meant: the earlier instant lies before the change.
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    changed = next_change(before, instant, zone)
    assert changed is not None
    return changed


def instants_of(walls: Iterable[datetime], after: datetime, zone: tzinfo) -> Iterator[datetime]:
    """When clocks show these local times, which are in order: each once, and those of one gap together.

    Only what comes after an instant: where an hour happens twice, clocks go back, and what they show may have been.
    """
    shown: datetime | None = None
    for wall in walls:
        if shown is not None and wall <= shown:
            # The gap that has swallowed the one before it has swallowed this one as well.
            continue
        found = instant_of(wall, zone)
        shown = shown_at(found, zone)
        if found > after:
            yield found


def next_change(since: datetime, until: datetime, zone: tzinfo) -> datetime | None:
    """The first instant after `since`, and not after `until`, at which clocks change, or None."""
    while since < until:
        end = min(since + _BETWEEN_CHANGES, until)
        if _offset(end, zone) != _offset(since, zone):
            return _change_between(since, end, zone)
        since = end
    return None


def comes_twice(instant: datetime, zone: tzinfo) -> bool:
    """Whether clocks show the same at another instant: an hour that happens twice."""
    local = instant.astimezone(zone)
    return local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()


def _change_between(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    offset = _offset(before, zone)
    while after - before > _MICROSECOND:
        middle = before + (after - before) / 2
        if _offset(middle, zone) == offset:
            before = middle
        else:
            after = middle
    return after


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset
