"""Which nominal times are judged one by one when a schedule is looked at late, and which together."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from services.tasks.models.schedule import CAP, WINDOW, Schedule, Span, due_times, parse_schedule
from services.tasks.models.task import ScheduleKind

NOON = datetime(2026, 5, 12, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def cron(expression: str) -> Schedule:
    return parse_schedule(ScheduleKind.CRON, expression, "UTC", NOON)


EVERY_SECOND, EVERY_TEN_MINUTES = cron("* * * * * *"), cron("*/10 * * * *")


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def test_a_time_that_is_due_right_now_is_the_only_one() -> None:
    for now in (NOON, NOON + minutes(9.99)):
        due = due_times(EVERY_TEN_MINUTES, NOON, now)
        assert (due.passed, due.times, due.following) == ([], [NOON], NOON + minutes(10))


def test_each_time_up_to_now_is_due_in_order() -> None:
    due = due_times(EVERY_TEN_MINUTES, NOON, NOON + minutes(20))
    assert (due.passed, due.times) == ([], [NOON, NOON + minutes(10), NOON + minutes(20)])


def test_a_time_that_is_exactly_as_old_as_the_window_is_in_it() -> None:
    assert due_times(EVERY_TEN_MINUTES, NOON, NOON + WINDOW).times[0] == NOON
    assert due_times(EVERY_TEN_MINUTES, NOON, NOON + WINDOW + SECOND).passed == [Span(NOON, NOON)]


def test_times_before_the_window_are_one_span() -> None:
    now = NOON + minutes(24 * 60 + 5)
    due = due_times(EVERY_TEN_MINUTES, NOON, now)
    assert due.passed == [Span(NOON, now - minutes(65))]
    assert due.times == [now - minutes(late) for late in (55, 45, 35, 25, 15, 5)]


def test_of_very_many_times_the_newest_are_judged_one_by_one() -> None:
    now = NOON + minutes(50)
    due = due_times(EVERY_SECOND, NOON, now)
    assert due.times == [now - late * SECOND for late in range(CAP - 1, -1, -1)]
    assert due.passed == [Span(NOON, now - CAP * SECOND)]


def test_nothing_is_left_over_between_a_span_and_the_others() -> None:
    # Bursts: every second of one minute in ten.
    schedule = cron("* */10 * * * *")
    now = NOON + minutes(24 * 60) + 30 * SECOND
    due = due_times(schedule, NOON, now)
    ((span,), first) = (due.passed, due.times[0])
    assert schedule.after(span.last) == first
    assert len(due.times) == CAP


def test_a_single_instant_is_due_however_late() -> None:
    once = parse_schedule(ScheduleKind.ONCE, NOON.isoformat(), "UTC", NOON)
    assert due_times(once, NOON, NOON + minutes(5)).times == [NOON]
    due = due_times(once, NOON, NOON + timedelta(days=400))
    assert (due.passed, due.times, due.following) == ([Span(NOON, NOON)], [], None)


def test_a_span_ends_at_a_border_and_another_begins() -> None:
    paused_at, now = NOON + minutes(35), NOON + minutes(180)
    due = due_times(EVERY_TEN_MINUTES, NOON, now, border=paused_at)
    assert due.passed == [Span(NOON, NOON + minutes(30)), Span(NOON + minutes(40), NOON + minutes(110))]
    # A border where nothing lies on one side of it makes no difference.
    for border in (NOON, NOON - minutes(5), NOON + minutes(175)):
        assert due_times(EVERY_TEN_MINUTES, NOON, now, border=border).passed == [Span(NOON, NOON + minutes(110))]


def test_a_time_that_was_snoozed_is_late_from_then_on_and_carries_along_what_it_passes() -> None:
    fire_at = NOON + timedelta(days=1)
    due = due_times(EVERY_TEN_MINUTES, NOON, fire_at, fire_at=fire_at)
    # The time at which it fires is one of the schedule's own.
    assert (due.passed, due.times, due.following) == ([], [NOON, fire_at], fire_at + minutes(10))
    assert due.snoozed == Span(NOON + minutes(10), fire_at - minutes(10))
    late = due_times(EVERY_TEN_MINUTES, NOON, fire_at + WINDOW + SECOND, fire_at=fire_at)
    assert late.passed == [Span(NOON, NOON), Span(fire_at, fire_at)]
    assert (late.times[0], late.snoozed) == (fire_at + minutes(10), due.snoozed)


@pytest.mark.parametrize("delay", [1, 2, 30, 600, 4000])
@pytest.mark.parametrize("late", [0, 1, 7, 3000, 4000])
def test_a_snooze_leaves_no_time_out_and_counts_none_twice(delay: int, late: int) -> None:
    fire_at = NOON + delay * SECOND
    now = fire_at + late * SECOND
    due = due_times(EVERY_SECOND, NOON, now, fire_at=fire_at)
    spans = [*due.passed, *([due.snoozed] if due.snoozed else [])]
    covered = [
        span.first + number * SECOND for span in spans for number in range((span.last - span.first) // SECOND + 1)
    ]
    assert sorted(covered + due.times) == [NOON + number * SECOND for number in range(delay + late + 1)]
    assert due.following == now + SECOND


def test_a_snooze_up_to_the_next_time_carries_nothing_along() -> None:
    for seconds in (30, 600):
        fire_at = NOON + seconds * SECOND
        assert due_times(EVERY_TEN_MINUTES, NOON, fire_at, fire_at=fire_at).snoozed is None


@pytest.mark.parametrize("rule", ["FREQ=SECONDLY", "FREQ=SECONDLY;INTERVAL=7;BYDAY=TU,WE", "FREQ=DAILY;BYHOUR=9"])
def test_a_week_of_seconds_is_judged_in_milliseconds(rule: str) -> None:
    # Twenty years ago: nobody counts the times since then.
    schedule = parse_schedule(ScheduleKind.RRULE, rule, "America/New_York", NOON - timedelta(days=7300))
    since = schedule.after(NOON - timedelta(days=7))
    assert since is not None
    begin = time.process_time()
    due_times(schedule, since, NOON)
    assert time.process_time() - begin < 0.25
