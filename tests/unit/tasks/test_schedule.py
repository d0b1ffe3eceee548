"""Which instants a schedule fires at."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.tasks.models.schedule import Schedule, ScheduleFault, parse_schedule
from services.tasks.models.task import ScheduleKind

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
CHISINAU, NEW_YORK = "Europe/Chisinau", "America/New_York"
# In 2026 the clocks change in Chisinau on 29 March (03:00 to 04:00) and 25 October (04:00 to 03:00), in New York on
# 8 March (02:00 to 03:00) and 1 November (02:00 to 01:00).


def cron(expression: str, timezone: str = "UTC") -> Schedule:
    return parse_schedule(ScheduleKind.CRON, expression, timezone, ANCHOR)


def once(expression: str, timezone: str = "UTC") -> datetime:
    instant = parse_schedule(ScheduleKind.ONCE, expression, timezone, ANCHOR).first(utc("2026-01-01T00:00"))
    assert instant is not None
    return instant


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fires(schedule: Schedule, start: datetime, end: datetime) -> Iterator[datetime]:
    """The nominal times behind `start`, until `end`."""
    instant = schedule.after(start)
    while instant is not None and instant <= end:
        yield instant
        instant = schedule.after(instant)


def local_fires(expression: str, timezone: str, day: str, days: int = 1) -> list[str]:
    """The times of day at which an expression fires on some days, with their offsets."""
    zone = ZoneInfo(timezone)
    start = datetime.fromisoformat(day).replace(tzinfo=zone)
    end = start + timedelta(days=days, microseconds=-1)
    found = fires(cron(expression, timezone), start.astimezone(UTC) - timedelta(microseconds=1), end.astimezone(UTC))
    return [instant.astimezone(zone).strftime("%d %H:%M:%S%z") for instant in found]


def faults(kind: ScheduleKind, expression: str, timezone: str = "UTC") -> dict[str, str]:
    with pytest.raises(ScheduleFault) as refused:
        parse_schedule(kind, expression, timezone, ANCHOR)
    return {violation.field: violation.description for violation in refused.value.violations}


@pytest.mark.parametrize(
    ("alias", "next_time"),
    [
        ("@yearly", "2027-01-01T00:00"),
        ("@annually", "2027-01-01T00:00"),
        ("@monthly", "2026-06-01T00:00"),
        ("@weekly", "2026-05-17T00:00"),
        ("@daily", "2026-05-13T00:00"),
        ("@midnight", "2026-05-13T00:00"),
        ("@hourly", "2026-05-12T11:00"),
        (" @Daily ", "2026-05-13T00:00"),
    ],
)
def test_aliases(alias: str, next_time: str) -> None:
    # A Tuesday.
    assert cron(alias).after(utc("2026-05-12T10:15:30")) == utc(next_time)


@pytest.mark.parametrize(
    ("expression", "next_times"),
    [
        ("30 9 * * *", ["2026-05-13T09:30", "2026-05-14T09:30"]),
        ("*/20 * * * *", ["2026-05-12T10:20", "2026-05-12T10:40"]),
        ("*/15 * * * * *", ["2026-05-12T10:15:45", "2026-05-12T10:16"]),
        ("10 0 9 * * *", ["2026-05-13T09:00:10", "2026-05-14T09:00:10"]),
        # 0 and 7 are Sunday.
        ("0 0 * * 0", ["2026-05-17T00:00", "2026-05-24T00:00"]),
        ("0 0 * * 7", ["2026-05-17T00:00", "2026-05-24T00:00"]),
        ("0 0 * * MON-TUE", ["2026-05-18T00:00", "2026-05-19T00:00"]),
        # The day of the month or the day of the week: the 15th is a Friday, the 17th a Sunday.
        ("0 0 15 * 0", ["2026-05-15T00:00", "2026-05-17T00:00"]),
        # With a star in front of either, both have to match: Mondays that are odd days, the first if it is an even
        # weekday. Without, either is enough.
        ("0 0 */2 * 1", ["2026-05-25T00:00", "2026-06-01T00:00", "2026-06-15T00:00", "2026-06-29T00:00"]),
        ("0 0 1 * */2", ["2026-08-01T00:00", "2026-09-01T00:00", "2026-10-01T00:00", "2026-11-01T00:00"]),
        ("0 0 1-31/2 * 1", ["2026-05-13T00:00", "2026-05-15T00:00", "2026-05-17T00:00", "2026-05-18T00:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        # A step within a range of one number leads nowhere, and one from a number goes on to the end.
        ("5-5/10 * * * *", ["2026-05-12T11:05", "2026-05-12T12:05"]),
        ("05-5/1,20 * * * *", ["2026-05-12T10:20", "2026-05-12T11:05", "2026-05-12T11:20"]),
        ("0 0 * * mon-MON/2", ["2026-05-18T00:00", "2026-05-25T00:00"]),
        ("5/30 * * * *", ["2026-05-12T10:35", "2026-05-12T11:05"]),
    ],
)
def test_cron_fields(expression: str, next_times: list[str]) -> None:
    start = utc("2026-05-12T10:15:30")
    found = fires(cron(expression), start, utc("2040-01-01T00:00"))
    assert list(itertools.islice(found, len(next_times))) == [utc(time) for time in next_times]


@pytest.mark.parametrize(
    "expression",
    ["* * * *", "* * * * * * *", "61 * * * *", "* 24 * * *", "0 0 31 2 *", "a b c d e", "*/0 * * * *", "5-1 * * * *",
     "@reboot", "@", "-1 * * * *", "0 0 ² * *"],
)  # fmt: skip
def test_a_bad_cron_expression_is_named(expression: str) -> None:
    found = faults(ScheduleKind.CRON, expression)
    assert list(found) == ["schedule_expr"]
    assert expression in found["schedule_expr"]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("61 7 * * *", "its minute is '61': use 0-59, or"),
        ("60 0 7 * * *", "its second is '60': use 0-59, or"),
        ("0 24 * * *", "its hour is '24': use 0-23, or"),
        ("0 0 32 * *", "its day-of-month is '32': use 1-31, L or LW, or"),
        ("0 0 31 4,6,9,11 *", "no month of '4,6,9,11' has a day '31': use another day or month"),
        ("0 0 1 13 *", "its month is '13': use 1-12 or JAN-DEC, or"),
        ("0 0 * * 8", "its day-of-week is '8': use 0-7 or SUN-SAT"),
        ("5-5/0 * * * *", "its minute is '5-5/0': use 0-59, or"),
        ("* * *", "its fields are 3: use 5, or 6 with seconds first"),
    ],
)
def test_what_is_wrong_with_a_cron_expression_is_told_with_what_to_do(expression: str, words: str) -> None:
    found = faults(ScheduleKind.CRON, expression)["schedule_expr"]
    assert found.startswith(f"{expression!r} is not a cron expression: {words}")


def test_an_unknown_alias_names_the_known_ones() -> None:
    assert "@daily" in faults(ScheduleKind.CRON, "@fortnightly")["schedule_expr"]


def test_a_cron_expression_that_never_comes_true_has_no_first_time() -> None:
    # Days of the month that begin with a star and days of the week must both match: no 1 February is a fifth Monday.
    assert cron("0 0 */30 2 1#5").first(utc("2026-01-01T00:00")) is None


@pytest.mark.parametrize("kind", [ScheduleKind.CRON, ScheduleKind.RRULE, ScheduleKind.ONCE])
@pytest.mark.parametrize("expression", ["", "  "])
def test_an_expression_is_required(kind: ScheduleKind, expression: str) -> None:
    assert faults(kind, expression) == {"schedule_expr": f"is required for schedule_kind {kind.value}"}


def test_a_manual_task_has_no_schedule() -> None:
    schedule = parse_schedule(ScheduleKind.MANUAL, "", "UTC", ANCHOR)
    assert schedule.first(utc("2026-01-01T00:00")) is None
    assert schedule.after(utc("2026-01-01T00:00")) is None
    assert "must be empty" in faults(ScheduleKind.MANUAL, "* * * * *")["schedule_expr"]


@pytest.mark.parametrize(
    "timezone",
    ["", ".", "..", "../etc/passwd", "/etc/localtime", "Europe", "Europe/..", "Europe/Atlantis", "zone.tab",
     "Europe/__init__.py", "os.path/join", "a..b/c", " UTC", "x" * 64, "Europe/Chișinău"],
)  # fmt: skip
def test_a_bad_timezone_is_named(timezone: str) -> None:
    found = faults(ScheduleKind.CRON, "@daily", timezone)
    assert list(found) == ["timezone"]
    assert repr(timezone) in found["timezone"]


@pytest.mark.parametrize("timezone", ["Etc/GMT+3", "America/Port-au-Prince", "America/Argentina/Buenos_Aires"])
def test_a_timezone_may_have_signs_and_folders_in_its_name(timezone: str) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=ZoneInfo(timezone))
    assert cron("0 12 * * *", timezone).after(utc("2026-01-01T00:00")) == noon


def test_all_faults_of_a_schedule_are_told_at_once() -> None:
    assert set(faults(ScheduleKind.CRON, "never", "Mars/Olympus")) == {"timezone", "schedule_expr"}


@pytest.mark.parametrize(
    ("expression", "instant"),
    [
        ("2026-12-24T18:00:00+02:00", "2026-12-24T16:00"),
        ("2026-12-24T18:00:00Z", "2026-12-24T18:00"),
        ("2026-12-24t18:00:00z", "2026-12-24T18:00"),
        ("2026-12-24T18:00:00.250000Z", "2026-12-24T18:00:00.250"),
        # Without an offset: the local time of the task's zone, in winter and in summer.
        ("2026-12-24T18:00:00", "2026-12-24T16:00"),
        ("2026-07-24T18:00:00", "2026-07-24T15:00"),
        # A local time that the clock change skipped: the first instant after it.
        ("2026-03-29T03:30:00", "2026-03-29T01:00"),
        # One that happens twice: the first.
        ("2026-10-25T03:30:00", "2026-10-25T00:30"),
    ],
)
def test_once_is_one_instant(expression: str, instant: str) -> None:
    assert once(expression, CHISINAU) == utc(instant)


@pytest.mark.parametrize("expression", ["tomorrow", "2026-02-30T00:00:00Z", "24.12.2026", "@daily", "* * * * *"])
def test_a_bad_instant_is_named(expression: str) -> None:
    assert repr(expression) in faults(ScheduleKind.ONCE, expression)["schedule_expr"]


@pytest.mark.parametrize("expression", ["0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00"])
def test_an_instant_beyond_the_calendar_is_refused(expression: str) -> None:
    assert "out of range" in faults(ScheduleKind.ONCE, expression)["schedule_expr"]


def test_once_fires_once() -> None:
    schedule = parse_schedule(ScheduleKind.ONCE, "2026-12-24T18:00:00Z", "UTC", ANCHOR)
    instant = utc("2026-12-24T18:00")
    assert schedule.first(utc("2027-01-01T00:00")) == instant
    assert schedule.after(instant - timedelta(microseconds=1)) == instant
    assert schedule.after(instant) is None


@pytest.mark.parametrize(
    ("timezone", "day", "hour", "expected"),
    [(CHISINAU, "2026-03-28", 3, ["28 03:30:00+0200", "29 04:00:00+0300", "30 03:30:00+0300"]),
     (NEW_YORK, "2026-03-07", 2, ["07 02:30:00-0500", "08 03:00:00-0400", "09 02:30:00-0400"])],
)  # fmt: skip
@pytest.mark.parametrize("expression", ["30 {} * * *", "0 30 {} * * *"])
def test_a_time_in_the_gap_fires_once_at_its_end(
    expression: str, timezone: str, day: str, hour: int, expected: list[str]
) -> None:
    assert local_fires(expression.format(hour), timezone, day, days=3) == expected


def test_all_times_in_one_gap_fire_together() -> None:
    assert local_fires("15 10,40 2 * * *", NEW_YORK, "2026-03-08") == ["08 03:00:00-0400"]


@pytest.mark.parametrize(
    ("timezone", "day", "hour", "expected"),
    [(CHISINAU, "2026-10-24", 3, ["24 03:30:00+0300", "25 03:30:00+0300", "26 03:30:00+0200"]),
     (NEW_YORK, "2026-10-31", 1, ["31 01:30:00-0400", "01 01:30:00-0400", "02 01:30:00-0500"])],
)  # fmt: skip
@pytest.mark.parametrize("expression", ["30 {} * * *", "0 30 {} * * *"])
def test_a_time_in_the_overlap_fires_once(
    expression: str, timezone: str, day: str, hour: int, expected: list[str]
) -> None:
    assert local_fires(expression.format(hour), timezone, day, days=3) == expected


def test_asked_in_the_second_hour_of_an_overlap_the_next_time_is_not_in_the_first() -> None:
    # 01:15 in New York for the second time; 01:30 has been.
    assert cron("30 1 * * *", NEW_YORK).after(utc("2026-11-01T06:15")) == utc("2026-11-02T06:30")


@pytest.mark.parametrize(
    ("expression", "day", "count"),
    # 23 hours on the day of the gap, 25 on that of the overlap.
    [("0 * * * *", "2026-03-29", 23), ("0 * * * *", "2026-10-25", 25), ("*/30 * * * *", "2026-10-25", 50),
     ("0 0 * * * *", "2026-10-25", 25)],
)  # fmt: skip
def test_every_hour_is_every_hour_that_passes(expression: str, day: str, count: int) -> None:
    assert len(local_fires(expression, CHISINAU, day)) == count


def test_every_minute_of_an_hour_that_is_skipped_fires_once_and_of_one_that_happens_twice_the_first_time() -> None:
    assert local_fires("*/30 2 13-15 3 *", NEW_YORK, "2027-03-14") == ["14 03:00:00-0400"]
    assert local_fires("* * 2 * * *", NEW_YORK, "2027-03-14") == ["14 03:00:00-0400"]
    expected = ["07 01:30:00-0400", "07 01:30:20-0400", "07 01:30:40-0400"]
    assert local_fires("*/20 30 1 7 11 *", NEW_YORK, "2027-11-07") == expected


def test_midnight_in_a_gap_fires_when_the_day_begins() -> None:
    # In Cairo the clocks go from 00:00 to 01:00 on 24 April 2026.
    assert local_fires("0 0 * * *", "Africa/Cairo", "2026-04-24") == ["24 01:00:00+0300"]


ZONES = st.sampled_from(
    ["UTC", CHISINAU, NEW_YORK, "Africa/Cairo", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu"]
)
EXPRESSIONS = st.sampled_from(
    ["30 1 * * *", "0,30 0-3 * * *", "15 30 2 * * *", "0 * * * *", "*/7 1 * * *", "* 0 * * *", "20 0 1 * 0",
     "*/30 * * * * *", "0 0 * * *", "59 23 * * 6", "* 30 1 * * *"]
)  # fmt: skip


@given(EXPRESSIONS, ZONES, st.integers(0, 366 * 24 * 3600))
def test_times_only_move_on(expression: str, timezone: str, second: int) -> None:
    schedule = cron(expression, timezone)
    instant = utc("2026-01-01T00:00") + timedelta(seconds=second)
    for _ in range(4):
        following = schedule.after(instant)
        assert following is not None
        assert following > instant
        # No time is skipped over: seen from any moment before it, it is the next one.
        assert schedule.after(following - timedelta(microseconds=1)) == following
        instant = following
