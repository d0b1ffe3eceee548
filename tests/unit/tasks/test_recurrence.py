"""Recurrence rules (RFC 5545): what they say, where they begin and end, and what is refused."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from services.tasks.models.schedule import Schedule, ScheduleFault, parse_schedule
from services.tasks.models.task import ScheduleKind

# A Tuesday.
ANCHOR = datetime(2026, 5, 12, 14, 37, 12, 500_000, tzinfo=UTC)
CHISINAU, NEW_YORK = "Europe/Chisinau", "America/New_York"


def rrule(expression: str, timezone: str = "UTC", anchor: datetime = ANCHOR) -> Schedule:
    return parse_schedule(ScheduleKind.RRULE, expression, timezone, anchor)


def times(expression: str, timezone: str = "UTC", count: int = 3, **options: Any) -> list[str]:
    """The first times of a rule, as UTC."""
    found = islice(rrule(expression, timezone, **options).upcoming(ANCHOR), count)
    return [at.replace(tzinfo=None).isoformat(timespec="minutes") for at in found]


def fault(expression: str, timezone: str = "UTC") -> str:
    with pytest.raises(ScheduleFault) as refused:
        rrule(expression, timezone)
    (violation,) = refused.value.violations
    assert violation.field == "schedule_expr"
    return violation.description


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("FREQ=DAILY", ["2026-05-13T14:37", "2026-05-14T14:37", "2026-05-15T14:37"]),
        ("RRULE:FREQ=DAILY;INTERVAL=2", ["2026-05-14T14:37", "2026-05-16T14:37", "2026-05-18T14:37"]),
        ("freq=weekly", ["2026-05-19T14:37", "2026-05-26T14:37", "2026-06-02T14:37"]),
        ("FREQ=MONTHLY", ["2026-06-12T14:37", "2026-07-12T14:37", "2026-08-12T14:37"]),
        ("FREQ=YEARLY", ["2027-05-12T14:37", "2028-05-12T14:37", "2029-05-12T14:37"]),
        ("FREQ=HOURLY;INTERVAL=6", ["2026-05-12T20:37", "2026-05-13T02:37", "2026-05-13T08:37"]),
        ("FREQ=MINUTELY;INTERVAL=15", ["2026-05-12T14:52", "2026-05-12T15:07", "2026-05-12T15:22"]),
    ],
)
def test_without_dtstart_a_rule_begins_when_the_schedule_was_set_at_a_whole_minute(
    expression: str, expected: list[str]
) -> None:
    assert times(expression) == expected
    # Whenever it is asked, the same times.
    schedule = rrule(expression)
    after_years = list(islice(schedule.upcoming(ANCHOR + timedelta(days=3653)), 100))
    assert after_years == [schedule.after(at - timedelta(seconds=1)) for at in after_years]


def test_an_hour_of_the_day_is_the_whole_hour() -> None:
    assert times("FREQ=DAILY;BYHOUR=9,17") == ["2026-05-12T17:00", "2026-05-13T09:00", "2026-05-13T17:00"]
    assert times("FREQ=HOURLY;BYHOUR=9,10") == ["2026-05-13T09:00", "2026-05-13T10:00", "2026-05-14T09:00"]
    # With a start of its own, a rule takes from there what it does not say: that is RFC 5545.
    start = "DTSTART:20260512T081530"
    assert times(f"{start}\nRRULE:FREQ=DAILY;BYHOUR=9", count=1) == ["2026-05-13T09:15"]


def test_by_the_second_seconds_count_from_the_whole_second() -> None:
    found = list(islice(rrule("FREQ=SECONDLY;INTERVAL=10").upcoming(ANCHOR), 2))
    assert [at - ANCHOR.replace(microsecond=0) for at in found] == [timedelta(seconds=10), timedelta(seconds=20)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=17", ["2026-05-29T17:00", "2026-06-26T17:00", "2026-07-31T17:00"]),
        ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;BYHOUR=9",
         ["2026-05-29T09:00", "2026-06-30T09:00", "2026-07-31T09:00"]),
        # Any Monday, and the first Friday.
        ("FREQ=MONTHLY;BYDAY=3MO,1FR;BYHOUR=9", ["2026-05-18T09:00", "2026-06-05T09:00", "2026-06-15T09:00"]),
        ("FREQ=MONTHLY;BYMONTHDAY=31;BYHOUR=0", ["2026-05-31T00:00", "2026-07-31T00:00", "2026-08-31T00:00"]),
        ("FREQ=MONTHLY;BYMONTHDAY=-1;BYHOUR=0", ["2026-05-31T00:00", "2026-06-30T00:00", "2026-07-31T00:00"]),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYHOUR=0", ["2028-02-29T00:00", "2032-02-29T00:00", "2036-02-29T00:00"]),
        ("FREQ=YEARLY;BYWEEKNO=1;BYDAY=MO;BYHOUR=0", ["2027-01-04T00:00", "2028-01-03T00:00", "2029-01-01T00:00"]),
        ("FREQ=YEARLY;BYWEEKNO=20;BYHOUR=0", ["2027-05-18T00:00", "2028-05-16T00:00", "2029-05-15T00:00"]),
        ("FREQ=YEARLY;BYYEARDAY=-1;BYHOUR=23", ["2026-12-31T23:00", "2027-12-31T23:00", "2028-12-31T23:00"]),
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO;BYHOUR=9", ["2026-05-25T09:00", "2026-06-08T09:00", "2026-06-22T09:00"]),
        # From an odd minute every second one is odd.
        ("FREQ=MINUTELY;INTERVAL=2;BYMINUTE=1,3", ["2026-05-12T15:01", "2026-05-12T15:03", "2026-05-12T16:01"]),
        # The week of the start begins on Tuesday, so that the Monday after it is still of that week.
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO;WKST=TU;BYHOUR=9",
         ["2026-05-18T09:00", "2026-06-01T09:00", "2026-06-15T09:00"]),
    ],
)  # fmt: skip
def test_what_the_parts_of_a_rule_mean(expression: str, expected: list[str]) -> None:
    assert times(expression) == expected


def test_dtstart_is_local_or_utc_and_is_the_first_time() -> None:
    for start in (
        "DTSTART:20260601T090000",
        "DTSTART:20260601T060000Z",
        f"DTSTART;TZID={CHISINAU}:2026-06-01T09:00:00",
    ):
        assert times(f"{start}\nRRULE:FREQ=DAILY;COUNT=2", CHISINAU) == ["2026-06-01T06:00", "2026-06-02T06:00"]


def test_count_runs_out() -> None:
    assert times("FREQ=DAILY;COUNT=2") == ["2026-05-13T14:37", "2026-05-14T14:37"]
    assert rrule("FREQ=DAILY;COUNT=2").after(ANCHOR + timedelta(days=2)) is None
    # From the start on, and not from when it is asked.
    assert times("DTSTART:20260510T090000\nFREQ=DAILY;COUNT=4") == ["2026-05-13T09:00"]


@pytest.mark.parametrize(
    ("until", "last"),
    [("20260514T143700Z", "2026-05-14T14:37"), ("20260514T143659Z", "2026-05-13T14:37"),
     ("20260514", "2026-05-14T14:37"),
     ("20260514T173700", "2026-05-14T14:37")],
)  # fmt: skip
def test_until_is_the_last_instant_or_the_last_day(until: str, last: str) -> None:
    assert times(f"FREQ=DAILY;UNTIL={until}", CHISINAU if until == "20260514T173700" else "UTC", count=9)[-1] == last


def test_exceptions_do_not_fire_and_count_all_the_same() -> None:
    lines = "DTSTART:20260601T090000\nRRULE:FREQ=DAILY;COUNT=4\nEXDATE:20260602T090000,20260604"
    assert times(lines, count=9) == ["2026-06-01T09:00", "2026-06-03T09:00"]


@pytest.mark.parametrize("timezone", ["UTC", NEW_YORK, "Asia/Tokyo"])
@pytest.mark.parametrize("frequency", ["HOURLY", "DAILY"])
def test_where_the_calendar_ends_a_rule_does(frequency: str, timezone: str) -> None:
    assert len(times(f"DTSTART:99991230T120000\nFREQ={frequency}", timezone, count=99)) < 48


def test_all_times_in_one_gap_fire_together() -> None:
    # On 8 March 2026 clocks in New York go from 02:00 to 03:00.
    lines = "DTSTART:20260307T000000\nRRULE:FREQ=DAILY;BYHOUR=2;BYMINUTE=10,40"
    schedule = rrule(lines, NEW_YORK)
    found = takewhile(lambda at: at.day <= 8, schedule.upcoming(datetime(2026, 3, 8, tzinfo=UTC)))
    assert list(found) == [datetime(2026, 3, 8, 7, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("FREQ=DAILY;COUNT=2;UNTIL=20270101", "both COUNT and UNTIL"),
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL=0: use 1.."),
        ("FREQ=DAILY;INTERVAL=-1", "INTERVAL=-1: use 1.."),
        ("FREQ=DAILY;COUNT=0", "COUNT=0: use 1..10000"),
        ("FREQ=DAILY;COUNT=1,2", "COUNT=1,2: use one number"),
        ("FREQ=DAILY;COUNT=²", "COUNT=²"),
        ("FREQ=FORTNIGHTLY", "unknown FREQ 'FORTNIGHTLY': use YEARLY"),
        ("BYDAY=MO", "no FREQ"),
        ("every day", "unknown part 'EVERY'"),
        ("FREQ=DAILY;FOO=1", "unknown part 'FOO'"),
        ("FREQ=DAILY;FREQ=DAILY", "FREQ twice"),
        ("FREQ=", "nothing for FREQ"),
        ("FREQ=DAILY;BYHOUR=24", "BYHOUR=24: use 0..23"),
        ("FREQ=DAILY;BYMONTHDAY=0", "BYMONTHDAY=0: use 1..31 or -31..-1"),
        ("FREQ=WEEKLY;BYDAY=XX", "BYDAY=XX"),
        ("FREQ=WEEKLY;BYDAY=2MO", "BYDAY with a number"),
        ("FREQ=MONTHLY;BYDAY=6MO", "BYDAY with a number above 5"),
        ("FREQ=YEARLY;BYDAY=54MO", "BYDAY=54MO"),
        ("FREQ=WEEKLY;WKST=X", "WKST=X"),
        ("FREQ=MONTHLY;BYWEEKNO=3", "BYWEEKNO, which goes with YEARLY"),
        ("FREQ=DAILY;BYSETPOS=1", "no other BY... part"),
        ("FREQ=HOURLY;BYMINUTE=1;BYSETPOS=1", "BYSETPOS, which goes with"),
        ("FREQ=DAILY;UNTIL=soon", "UNTIL 'soon'"),
        ("DTSTART:20260101T000000", "no rule"),
        ("DTSTART:later FREQ=DAILY", "DTSTART 'later'"),
        ("DTSTART:20260101 DTSTART:20260102 FREQ=DAILY", "more than one DTSTART"),
        ("FREQ=DAILY FREQ=WEEKLY", "more than one RRULE"),
        ("DTSTART;TZID=Europe/Paris:20260101 FREQ=DAILY", "TZID=Europe/Paris, but the task's timezone is UTC"),
        ("DTSTART;FOO=1:20260101 FREQ=DAILY", "parameter 'FOO'"),
        ("RDATE:20260101\nRRULE:FREQ=DAILY", "line 'RDATE'"),
        ("FREQ=DAILY;BYHOUR=" + ",".join(map(str, range(24))) + ";BYMINUTE=" + ",".join(map(str, range(60)))
         + ";BYSECOND=0,30", "2880 times a day"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rule_is_told(expression: str, words: str) -> None:
    description = fault(expression)
    assert words.lower() in description.lower()
    assert repr(expression) in description


@pytest.mark.parametrize(
    "expression",
    [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=MONTHLY;BYMONTHDAY=31;BYMONTH=4", "FREQ=SECONDLY;INTERVAL=2;BYSECOND=1,3",
        "FREQ=YEARLY;UNTIL=20260512T143700Z",
        "FREQ=MINUTELY;INTERVAL=1440;BYHOUR=9;BYMINUTE=30", "FREQ=YEARLY;INTERVAL=31536000",
        "FREQ=SECONDLY;INTERVAL=8;BYMINUTE=0;BYSECOND=2",
    ],
)  # fmt: skip
def test_a_rule_that_never_comes_true_has_no_first_time_and_is_not_looked_for_long(expression: str) -> None:
    begin = time.process_time()
    assert rrule(expression, anchor=ANCHOR.replace(second=0)).first(ANCHOR) is None
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    "expression",
    [
        "DTSTART:20300101T000000\nFREQ=SECONDLY;COUNT=10000;BYSECOND=0;BYMINUTE=0;BYHOUR=0;BYMONTHDAY=29;BYMONTH=2",
        "FREQ=HOURLY;COUNT=10000;BYMONTHDAY=13;BYDAY=FR;BYHOUR=2",
        "FREQ=SECONDLY;COUNT=9000;INTERVAL=397;BYSECOND=7;BYMINUTE=0,1,2,3,4,5",
        "FREQ=MINUTELY;COUNT=10000;INTERVAL=86399;BYDAY=MO",
        "FREQ=YEARLY;COUNT=31",
        "FREQ=DAILY;COUNT=10000;INTERVAL=2",
    ],
)
def test_a_count_that_does_not_run_out_for_decades_is_refused_at_once(expression: str) -> None:
    begin = time.process_time()
    assert "which does not run out within 30 years of its start: use a smaller COUNT, or UNTIL" in fault(expression)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    ("expression", "last"),
    [
        ("FREQ=DAILY;COUNT=10000", "2053-09-27T14:37"),
        ("FREQ=YEARLY;COUNT=30", "2056-05-12T14:37"),
        ("FREQ=SECONDLY;BYSECOND=0;BYMINUTE=0;BYHOUR=0;BYMONTHDAY=29;BYMONTH=2;COUNT=7", "2052-02-29T00:00"),
        ("FREQ=HOURLY;BYMONTHDAY=13;BYDAY=FR;BYHOUR=2;COUNT=5", "2029-07-13T02:00"),
    ],
)
def test_a_count_may_run_out_after_decades(expression: str, last: str) -> None:
    begin = time.process_time()
    assert times(expression, count=10_000)[-1] == last
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    "expression",
    ["FREQ=SECONDLY;INTERVAL=1027;BYHOUR=0;BYMINUTE=0;BYSECOND=0", "FREQ=SECONDLY;BYHOUR=23;BYMINUTE=58,59",
     "FREQ=SECONDLY;BYMONTHDAY=13;BYDAY=FR;BYHOUR=2;BYMINUTE=0;BYSECOND=0",
     "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO",
     "FREQ=HOURLY;INTERVAL=86399"],
)  # fmt: skip
def test_times_that_are_far_apart_are_found_soon(expression: str) -> None:
    begin = time.process_time()
    times(expression, NEW_YORK, count=20)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    "expression",
    ["FREQ=MINUTELY", "FREQ=SECONDLY;INTERVAL=7", "FREQ=HOURLY;BYDAY=MO;BYHOUR=9", "FREQ=DAILY;INTERVAL=3",
     "FREQ=WEEKLY",
     "FREQ=SECONDLY;INTERVAL=7;BYHOUR=8;BYMINUTE=59;BYSECOND=59", "FREQ=MONTHLY;BYDAY=-1FR", "FREQ=YEARLY;BYDAY=20MO"],
)  # fmt: skip
def test_a_start_decades_ago_takes_no_time(expression: str) -> None:
    schedule = rrule(expression, NEW_YORK, datetime(1985, 1, 1, tzinfo=UTC))
    schedule.after(ANCHOR)
    begin = time.process_time()
    for day in range(10):
        schedule.after(ANCHOR + timedelta(days=day))
    assert time.process_time() - begin < 0.1


def numbers(lowest: int, highest: int) -> st.SearchStrategy[str]:
    return st.lists(st.integers(lowest, highest), min_size=1, max_size=4, unique=True).map(
        lambda found: ",".join(map(str, found))
    )


def either_end(highest: int) -> st.SearchStrategy[str]:
    one = st.one_of(st.integers(1, highest), st.integers(-highest, -1))
    return st.lists(one, min_size=1, max_size=4, unique=True).map(lambda found: ",".join(map(str, found)))


DAYS = st.lists(st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"]), min_size=1, max_size=4, unique=True).map(
    ",".join
)
NUMBERED = st.lists(
    st.tuples(
        st.sampled_from([-5, -2, -1, 1, 2, 3, 5]), st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"])
    ).map("{0[0]}{0[1]}".format),
    min_size=1,
    max_size=3,
    unique=True,
).map(",".join)


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Rules that dateutil reads as RFC 5545 does."""
    frequency = draw(st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY"]))
    parts = {"FREQ": frequency, "INTERVAL": str(draw(st.integers(1, 4))), "WKST": draw(st.sampled_from(["MO", "SU"]))}
    optional = {"BYMONTH": numbers(1, 12), "BYHOUR": numbers(0, 23), "BYMINUTE": numbers(0, 59)}
    optional["BYDAY"] = st.one_of(DAYS, NUMBERED) if frequency in ("YEARLY", "MONTHLY") else DAYS
    if frequency != "WEEKLY":
        optional["BYMONTHDAY"] = either_end(31)
    if frequency == "YEARLY":
        optional["BYYEARDAY"] = either_end(366)
    for name, strategy in optional.items():
        if draw(st.integers(0, 2)) == 0:
            parts[name] = draw(strategy)
    if len(parts) > 3 and frequency in ("YEARLY", "MONTHLY") and draw(st.booleans()):
        parts["BYSETPOS"] = draw(either_end(5))
    return ";".join(f"{name}={value}" for name, value in parts.items())


# dateutil looks for the next time until the year 9999, which takes it seconds where there is none.
STARTS = st.datetimes(datetime.fromisoformat("9900-01-01"), datetime.fromisoformat("9930-01-01"))


@settings(max_examples=60, deadline=None)
@given(rules(), STARTS)
def test_rules_mean_what_dateutil_takes_them_for(rule: str, start: datetime) -> None:
    start = start.replace(microsecond=0)
    end = start + timedelta(days=1500)
    expected = takewhile(lambda at: at < end, iter(rrulestr(rule, dtstart=start)))
    found = rrule(f"DTSTART:{start:%Y%m%dT%H%M%S} {rule}").upcoming(start.replace(tzinfo=UTC) - timedelta(seconds=1))
    until_end = takewhile(lambda at: at < end, (at.replace(tzinfo=None) for at in found))
    assert list(islice(until_end, 200)) == list(islice(expected, 200))


@st.composite
def rules_by_the_hour(draw: st.DrawFn) -> str:
    """Rules by the hour, minute and second."""
    frequency = draw(st.sampled_from(["HOURLY", "MINUTELY", "SECONDLY"]))
    interval = draw(st.sampled_from([1, 2, 5, 7, 24, 60, 90, 397, 1440, 3607, 90_000]))
    parts = {"FREQ": frequency, "INTERVAL": str(interval)}
    optional = {"BYHOUR": numbers(0, 23), "BYMINUTE": numbers(0, 59), "BYSECOND": numbers(0, 59), "BYDAY": DAYS}
    for name, strategy in optional.items():
        if draw(st.integers(0, 2)) == 0:
            parts[name] = draw(strategy)
    return ";".join(f"{name}={value}" for name, value in parts.items())


def every_second_of(rule: str, start: datetime, days: int) -> Iterator[datetime]:
    """The times of such a rule in the days from its start, found by looking at every second."""
    parts = dict(part.split("=") for part in rule.split(";"))
    chosen = {
        name: set(map(int, parts[name].split(","))) for name in ("BYHOUR", "BYMINUTE", "BYSECOND") if name in parts
    }
    unit = {"HOURLY": 3600, "MINUTELY": 60, "SECONDLY": 1}[parts["FREQ"]]
    weekdays = parts.get("BYDAY", "MO,TU,WE,TH,FR,SA,SU").split(",")
    minutes = chosen.get("BYMINUTE", {start.minute} if unit > 60 else range(60))
    seconds = chosen.get("BYSECOND", {start.second} if unit > 1 else range(60))
    first_unit = start.replace(minute=start.minute if unit <= 60 else 0, second=start.second if unit == 1 else 0)
    for passed in range(days * 86_400):
        at = start + timedelta(seconds=passed)
        if at.second in seconds and at.minute in minutes and at.hour in chosen.get("BYHOUR", range(24)):
            units = (at - first_unit) // timedelta(seconds=unit)
            if (
                units % int(parts["INTERVAL"]) == 0
                and ("MO", "TU", "WE", "TH", "FR", "SA", "SU")[at.weekday()] in weekdays
            ):
                yield at


IN_A_YEAR = st.datetimes(datetime.fromisoformat("2026-01-01"), datetime.fromisoformat("2027-01-01"))


@settings(max_examples=25, deadline=None)
@given(rules_by_the_hour(), IN_A_YEAR, st.integers(0, 2 * 86_400))
def test_rules_by_the_hour_fire_when_a_look_at_every_second_says(rule: str, start: datetime, later: int) -> None:
    start = start.replace(microsecond=0)
    since, end = start + timedelta(seconds=later), start + timedelta(days=3)
    found = rrule(f"DTSTART:{start:%Y%m%dT%H%M%S} {rule}").upcoming(since.replace(tzinfo=UTC) - timedelta(seconds=1))
    until_end = takewhile(lambda at: at < end, (at.replace(tzinfo=None) for at in found))
    expected = (at for at in every_second_of(rule, start, 3) if at >= since)
    assert list(islice(until_end, 500)) == list(islice(expected, 500))
