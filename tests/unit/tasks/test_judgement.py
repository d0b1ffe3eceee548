"""What becomes of nominal times that have come: misfire, overlap and dedupe rules, outcome by outcome."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.chassis.backoff import BackoffStrategy
from services.chassis.clock import instant_text
from services.tasks.models.judgement import Judgement, judge
from services.tasks.models.occurrence import Outcome
from services.tasks.models.run import NewRun
from services.tasks.models.schedule import due_times, parse_schedule
from services.tasks.models.task import Misfire, Overlap, ScheduleKind, Task, TaskStatus
from services.tasks.operations.new_run import new_run

NOON = datetime(2026, 5, 12, 12, tzinfo=UTC)
SKIP, RUN_ONCE, RUN_ALL = Misfire.SKIP, Misfire.RUN_ONCE, Misfire.RUN_ALL
RAN, MISSED, PAUSED = Outcome.RAN, Outcome.MISSED, Outcome.PAUSED
TASK = Task(
    id="01890000-0000-7000-8000-000000000000", title="a task", description="", schedule_kind=ScheduleKind.CRON,
    schedule_expr="*/10 * * * *", schedule_anchor=NOON, timezone="UTC", payload={"pipeline": []}, priority=5,
    dedupe_key="", dedupe_window_seconds=0, max_retries=3, backoff_strategy=BackoffStrategy.FIXED, concurrency_key="",
    misfire=RUN_ONCE, overlap=Overlap.ALLOW, role="", created_by="agent", status=TaskStatus.ACTIVE, paused_at=None,
    next_fire_at=NOON, next_scheduled_for=NOON, created_at=NOON, updated_at=NOON,
)  # fmt: skip


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


def judged(
    task: Task,
    now: datetime,
    live_run: str | None = None,
    take: Callable[[Task, NewRun], str | None] = lambda task, run: None,
) -> Judgement:
    schedule = parse_schedule(task.schedule_kind, task.schedule_expr, task.timezone, task.schedule_anchor)
    assert task.next_scheduled_for is not None
    due = due_times(schedule, task.next_scheduled_for, now, fire_at=task.next_fire_at, border=task.paused_at)

    def run_of(task: Task, due_at: datetime) -> NewRun:
        return new_run(task, due_at=due_at, traceparent="")

    return judge(task, due, now, live_run=live_run, new_run=run_of, take=take)


def outcomes(judgement: Judgement) -> list[tuple[int, Outcome]]:
    """The minutes after noon and what became of them; of a span, its last minute."""
    last = [(one.through or one.scheduled_for, one.outcome) for one in judgement.occurrences]
    return [((at - NOON) // minutes(1), outcome) for at, outcome in last]


@pytest.mark.parametrize(
    ("misfire", "late", "expected"),
    [
        (SKIP, seconds(10), [(0, RAN)]),
        (SKIP, seconds(30), [(0, RAN)]),
        (SKIP, seconds(31), [(0, MISSED)]),
        (SKIP, minutes(5), [(0, MISSED)]),
        (SKIP, minutes(10), [(0, MISSED), (10, RAN)]),
        (SKIP, hours(2), [(50, MISSED), *[(minute, MISSED) for minute in range(60, 120, 10)], (120, RAN)]),
        (SKIP, hours(24 * 7) + minutes(5),
         [(10020, MISSED), *[(minute, MISSED) for minute in range(10030, 10090, 10)]]),
        (RUN_ONCE, seconds(10), [(0, RAN)]),
        (RUN_ONCE, minutes(5), [(0, RAN)]),
        (RUN_ONCE, minutes(25), [(0, MISSED), (10, MISSED), (20, RAN)]),
        (RUN_ONCE, hours(2), [(50, MISSED), *[(minute, MISSED) for minute in range(60, 120, 10)], (120, RAN)]),
        (RUN_ALL, seconds(10), [(0, RAN)]),
        (RUN_ALL, minutes(25), [(0, RAN), (10, RAN), (20, RAN)]),
        (RUN_ALL, hours(2), [(50, MISSED), *[(minute, RAN) for minute in range(60, 130, 10)]]),
    ],
)  # fmt: skip
def test_misfire(misfire: Misfire, late: timedelta, expected: list[tuple[int, Outcome]]) -> None:
    judgement = judged(replace(TASK, misfire=misfire), NOON + late)
    assert outcomes(judgement) == expected
    ran = [one.run_id for one in judgement.occurrences if one.outcome is RAN]
    assert ran == [run.id for run in judgement.runs]


@pytest.mark.parametrize("misfire", list(Misfire))
def test_what_is_older_than_the_window_never_runs(misfire: Misfire) -> None:
    task = replace(TASK, misfire=misfire, schedule_expr="0 12 * * *")
    (occurrence,) = judged(task, NOON + hours(2)).occurrences
    assert (occurrence.outcome, occurrence.reason, occurrence.through) == (
        MISSED,
        "noticed more than 60 min late",
        None,
    )
    span, newest = judged(task, NOON + hours(24 * 7)).occurrences
    assert (span.scheduled_for, span.through) == (NOON, NOON + hours(24 * 6))
    assert newest.outcome is RAN


def test_of_a_second_by_second_schedule_the_newest_hundred_run() -> None:
    task = replace(TASK, misfire=RUN_ALL, schedule_expr="* * * * * *")
    span, *others = judged(task, NOON + minutes(30)).occurrences
    assert (span.outcome, span.reason) == (MISSED, "more than 100 times were due at once")
    assert [one.outcome for one in others] == [RAN] * 100


@pytest.mark.parametrize(
    ("overlap", "live", "expected"),
    [
        (Overlap.ALLOW, "other", [RAN, RAN, RAN]),
        (Overlap.QUEUE, "other", [RAN, RAN, RAN]),
        (Overlap.SKIP, "other", [Outcome.SKIPPED_OVERLAP] * 3),
        # The first of them is in the way of the others.
        (Overlap.SKIP, None, [RAN, Outcome.SKIPPED_OVERLAP, Outcome.SKIPPED_OVERLAP]),
    ],
)
def test_overlap(overlap: Overlap, live: str | None, expected: list[Outcome]) -> None:
    judgement = judged(replace(TASK, misfire=RUN_ALL, overlap=overlap), NOON + minutes(25), live_run=live)
    assert [one.outcome for one in judgement.occurrences] == expected
    in_the_way = {one.run_id for one in judgement.occurrences if one.outcome is Outcome.SKIPPED_OVERLAP}
    assert in_the_way <= {live or judgement.runs[0].id}
    assert {run.concurrency_key for run in judgement.runs} <= {f"task/{TASK.id}" if overlap is Overlap.QUEUE else ""}


def test_a_firing_whose_key_is_taken_makes_no_run_and_names_the_other() -> None:
    holders: dict[str, str] = {}

    def take(task: Task, run: NewRun) -> str | None:
        holder = holders.setdefault(task.dedupe_key, run.id)
        return None if holder == run.id else holder

    judgement = judged(replace(TASK, misfire=RUN_ALL, dedupe_key="a"), NOON + minutes(25), take=take)
    first, *others = judgement.occurrences
    assert [run.id for run in judgement.runs] == [first.run_id]
    assert {(one.outcome, one.run_id) for one in others} == {(Outcome.SUPPRESSED_DUPLICATE, first.run_id)}


def test_what_does_not_run_anyway_takes_no_key() -> None:
    def take(task: Task, run: NewRun) -> str | None:
        raise AssertionError("taken")

    task = replace(TASK, misfire=SKIP, overlap=Overlap.SKIP)
    judged(task, NOON + minutes(5), take=take)
    judged(task, NOON, live_run="other", take=take)


def test_times_that_came_while_the_task_was_paused_were_paused() -> None:
    task = replace(TASK, paused_at=NOON + minutes(15), status=TaskStatus.PAUSED)
    assert outcomes(judged(task, NOON + minutes(35))) == [(0, MISSED), (10, MISSED), (20, PAUSED), (30, RAN)]
    old_missed, old_paused, *_ = judged(task, NOON + hours(5)).occurrences
    assert (old_missed.outcome, old_missed.through) == (MISSED, NOON + minutes(10))
    assert (old_paused.outcome, old_paused.scheduled_for) == (PAUSED, NOON + minutes(20))
    assert old_paused.reason == "the task was paused"


@pytest.mark.parametrize("misfire", list(Misfire))
def test_a_snoozed_time_is_late_from_when_it_was_snoozed_to(misfire: Misfire) -> None:
    fire_at = NOON + hours(5)
    task = replace(TASK, misfire=misfire, schedule_expr="0 12 * * *", next_fire_at=fire_at)
    judgement = judged(task, fire_at + seconds(20))
    assert [one.outcome for one in judgement.occurrences] == [RAN]
    (run,) = judgement.runs
    assert run.due_at == fire_at


@pytest.mark.parametrize("misfire", list(Misfire))
@pytest.mark.parametrize("delay", [4, 4000])
def test_of_a_frequent_schedule_the_snoozed_time_runs_and_those_it_passes_were_snoozed(
    misfire: Misfire, delay: int
) -> None:
    fire_at = NOON + seconds(delay)
    task = replace(TASK, misfire=misfire, schedule_expr="* * * * * *", next_fire_at=fire_at)
    carried, snoozed, own = judged(task, fire_at).occurrences
    assert (snoozed.scheduled_for, snoozed.outcome) == (NOON, RAN)
    assert (carried.scheduled_for, carried.through) == (NOON + seconds(1), fire_at - seconds(1))
    assert (carried.outcome, carried.reason) == (MISSED, f"the task was snoozed until {instant_text(fire_at)}")
    # The schedule's own time of that second is not one that the snooze has moved.
    assert (own.scheduled_for, own.outcome) == (fire_at, RAN)


def test_a_snoozed_time_runs_beside_the_newest_of_those_that_were_late() -> None:
    task = replace(TASK, next_fire_at=NOON + minutes(15))
    assert outcomes(judged(task, NOON + minutes(45))) == [
        (10, MISSED), (0, RAN), (20, MISSED), (30, MISSED), (40, RAN),
    ]  # fmt: skip


def test_a_snooze_that_was_noticed_too_late_is_missed() -> None:
    task = replace(TASK, schedule_expr="0 12 * * *", next_fire_at=NOON + hours(2))
    (occurrence,) = judged(task, NOON + hours(4)).occurrences
    assert (occurrence.outcome, occurrence.reason) == (MISSED, "noticed more than 60 min late")
