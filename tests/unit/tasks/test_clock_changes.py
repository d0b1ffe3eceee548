"""Schedules at every change of the clocks from 2024 to 2035, against a clock that is watched minute by minute."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.tasks.models.schedule import Schedule, parse_schedule
from services.tasks.models.task import ScheduleKind
from tests.unit.tasks import wall_clock
from tests.unit.tasks.wall_clock import MINUTE, ZONES, Matches, Minute, around, changes

FIXED = ("30 2 * * *", "0 3 * * *", "15,45 1-3 * * *", "10 2 8-14 3 7", "0-59/20 0-23 * * *", "45 1 1 */2 *",
         "*/30 2 * * *", "* 1-2 * * *")  # fmt: skip
WILD = ("*/7 * * * *", "30 * * * *", "15 */2 * * *", "30 * 1-7 * 0")
ANCHOR = datetime(2023, 12, 20, 23, 17, tzinfo=UTC)


def fires(schedule: Schedule, minutes: Sequence[Minute]) -> list[datetime]:
    """When a schedule fires within these minutes."""
    times = schedule.upcoming(minutes[0].at - MINUTE)
    return [at for at in takewhile(lambda at: at <= minutes[-1].at, times) if at >= minutes[0].at]


def rrule(rule: str, zone: str) -> Schedule:
    return parse_schedule(ScheduleKind.RRULE, rule, zone, ANCHOR)


def test_the_clocks_of_these_zones_change_as_often_as_they_do() -> None:
    assert {zone: len(changes(zone)) for zone in ZONES} == dict(zip(ZONES, (12, 24, 24, 24), strict=True))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", FIXED + WILD)
def test_cron(expression: str, zone: str) -> None:
    schedule = parse_schedule(ScheduleKind.CRON, expression, zone, ANCHOR)
    for change in changes(zone):
        minutes = around(change, zone)
        assert fires(schedule, minutes) == wall_clock.cron_fires(expression, minutes)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", ["30 2 * * *", "*/30 1,2 * * *", "15 * * * *"])
def test_seconds_make_no_difference_to_hours_and_minutes(expression: str, zone: str) -> None:
    without = parse_schedule(ScheduleKind.CRON, expression, zone, ANCHOR)
    named = parse_schedule(ScheduleKind.CRON, f"0 {expression}", zone, ANCHOR)
    every = parse_schedule(ScheduleKind.CRON, f"*/20 {expression}", zone, ANCHOR)
    for change in changes(zone):
        minutes = around(change, zone)
        expected = fires(without, minutes)
        assert fires(named, minutes) == expected
        # The gap swallows all seconds of its minutes together.
        assert sorted({at.replace(second=0) for at in fires(every, minutes)}) == expected


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ("FREQ=DAILY;BYHOUR=0,1,2,3;BYMINUTE=0,45", lambda shown: shown.hour < 4 and shown.minute in (0, 45)),
        ("FREQ=WEEKLY;BYDAY=SU;BYHOUR=2;BYMINUTE=15",
         lambda shown: shown.weekday() == 6 and (shown.hour, shown.minute) == (2, 15)),
        ("FREQ=DAILY;BYMONTH=3,4,10,11;BYHOUR=1",
         lambda shown: shown.month in (3, 4, 10, 11) and (shown.hour, shown.minute) == (1, 0)),
    ],
)  # fmt: skip
def test_rules_by_the_day(rule: str, matches: Matches, zone: str) -> None:
    schedule = rrule(rule, zone)
    for change in changes(zone):
        minutes = around(change, zone)
        assert fires(schedule, minutes) == wall_clock.fixed(minutes, matches)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("interval", [3])
def test_every_few_days_and_weeks_are_counted_on_the_calendar(interval: int, zone: str) -> None:
    first = ANCHOR.astimezone(ZoneInfo(zone)).date()
    monday = first - timedelta(days=first.weekday())
    daily = rrule(f"FREQ=DAILY;INTERVAL={interval};BYHOUR=2;BYMINUTE=10", zone)
    weekly = rrule(f"FREQ=WEEKLY;INTERVAL={interval};BYDAY=SA,SU;BYHOUR=1,3;BYMINUTE=0", zone)

    def on_day(shown: datetime) -> bool:
        return (shown.hour, shown.minute) == (2, 10) and (shown.date() - first).days % interval == 0

    def in_week(shown: datetime) -> bool:
        is_time = shown.hour in (1, 3) and shown.minute == 0 and shown.weekday() in (5, 6)
        return is_time and (shown.date() - monday).days // 7 % interval == 0

    for change in changes(zone):
        minutes = around(change, zone)
        assert fires(daily, minutes) == wall_clock.fixed(minutes, on_day)
        assert fires(weekly, minutes) == wall_clock.fixed(minutes, in_week)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    ("rule", "every", "matches"),
    [
        ("FREQ=HOURLY;INTERVAL=5", 300, lambda shown: True),
        ("FREQ=MINUTELY;INTERVAL=45", 45, lambda shown: True),
        ("FREQ=MINUTELY;INTERVAL=45;BYHOUR=1,2,3;BYMINUTE=2", 45,
         lambda shown: shown.hour in (1, 2, 3) and shown.minute == 2),
        ("FREQ=HOURLY;BYHOUR=1,2,3;BYMINUTE=15,45", 1,
         lambda shown: shown.hour in (1, 2, 3) and shown.minute in (15, 45)),
        ("FREQ=MINUTELY;BYDAY=SU;BYHOUR=2", 1, lambda shown: shown.weekday() == 6 and shown.hour == 2),
    ],
)  # fmt: skip
def test_rules_by_the_hour_and_minute_count_elapsed_time(rule: str, every: int, matches: Matches, zone: str) -> None:
    schedule = rrule(rule, zone)
    for change in changes(zone):
        minutes = around(change, zone)
        expected = wall_clock.elapsed(minutes, ANCHOR, every * MINUTE, matches)
        assert fires(schedule, minutes) == expected


def field(lowest: int, highest: int) -> st.SearchStrategy[str]:
    """A field of a cron expression."""
    number = st.integers(lowest, highest)
    span = st.lists(number, min_size=2, max_size=2).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, highest)).map("{0[0]}/{0[1]}".format)
    one = st.one_of(number.map(str), span, step)
    return st.one_of(st.just("*"), st.lists(one, min_size=1, max_size=3).map(",".join))


EXPRESSIONS = st.tuples(field(0, 59), field(0, 4), field(1, 31), st.just("*"), field(0, 7)).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(EXPRESSIONS, st.sampled_from(ZONES), st.data())
def test_any_cron_expression(expression: str, zone: str, data: st.DataObject) -> None:
    minutes = around(data.draw(st.sampled_from(changes(zone))), zone)
    schedule = parse_schedule(ScheduleKind.CRON, expression, zone, ANCHOR)
    assert fires(schedule, minutes) == wall_clock.cron_fires(expression, minutes)
