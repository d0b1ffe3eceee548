"""Which nominal times are judged when a schedule is looked at late."""

from datetime import UTC, datetime, timedelta

from services.tasks.models.schedule import MAX_DUE, MISFIRE_WINDOW, due_times, parse_schedule
from services.tasks.models.task import ScheduleKind

NOON = datetime(2026, 5, 12, 12, tzinfo=UTC)
EVERY_SECOND = parse_schedule(ScheduleKind.CRON, "* * * * * *", "UTC")
EVERY_TEN_MINUTES = parse_schedule(ScheduleKind.CRON, "*/10 * * * *", "UTC")


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def test_a_time_that_is_due_right_now_is_the_only_one() -> None:
    assert due_times(EVERY_TEN_MINUTES, NOON, NOON) == [NOON]
    assert due_times(EVERY_TEN_MINUTES, NOON, NOON + minutes(9.99)) == [NOON]


def test_each_time_up_to_now_is_due_in_order() -> None:
    assert due_times(EVERY_TEN_MINUTES, NOON, NOON + minutes(20)) == [NOON, NOON + minutes(10), NOON + minutes(20)]


def test_times_before_the_window_are_stood_for_by_the_first() -> None:
    now = NOON + minutes(24 * 60 + 5)
    first, *others = due_times(EVERY_TEN_MINUTES, NOON, now)
    assert first == NOON
    assert len(others) == 6
    assert others[0] >= now - MISFIRE_WINDOW
    assert others[-1] == now - minutes(5)


def test_of_very_many_times_the_first_and_the_newest_are_judged() -> None:
    now = NOON + minutes(50)
    first, *others = due_times(EVERY_SECOND, NOON, now)
    assert first == NOON
    assert len(others) == MAX_DUE
    assert others[-1] == now
    assert others == sorted(set(others))


def test_a_single_instant_is_due_however_late() -> None:
    once = parse_schedule(ScheduleKind.ONCE, NOON.isoformat(), "UTC")
    assert due_times(once, NOON, NOON + timedelta(days=400)) == [NOON]
