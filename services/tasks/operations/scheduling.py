"""Firing what is due. Several schedulers may run at once: each nominal time gets one outcome all the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.database_errors import TryAgain
from services.tasks.models.judgement import Judgement, judge
from services.tasks.models.occurrence import Occurrence, Outcome
from services.tasks.models.run import NewRun
from services.tasks.models.schedule import Due, ScheduleFault, due_times, parse_schedule
from services.tasks.models.task import Overlap, Task, TaskStatus
from services.tasks.operations.new_run import new_run
from services.tasks.operations.task_audit import task_payload
from services.tasks.store import dedupe as dedupe_store
from services.tasks.store import occurrence as occurrence_store
from services.tasks.store import queue as queue_store
from services.tasks.store import schedule as store
from services.tasks.store.domain_event import DomainEvent, publish

BATCH = 500
_MAX_REASON_LENGTH = 200
NewTrace = Callable[[str], str]
"""Begins a trace for a task's run and answers its traceparent."""
RunOf = Callable[[Task, datetime], NewRun]
"""Makes the run of a time, given when that was due."""


@dataclass(frozen=True)
class Unreadable:
    """A task whose stored schedule means nothing any more, such as one in a timezone that was abolished."""

    task_id: str
    reason: str


@dataclass(frozen=True)
class Ahead:
    """What is left of a schedule once the times that have come are judged."""

    status: TaskStatus
    """Active; completed when no time is left."""
    next_fire_at: datetime | None
    next_scheduled_for: datetime | None


@dataclass(frozen=True)
class Fired:
    """What one round of the scheduler did."""

    at: datetime
    occurrences: list[Occurrence]
    runs: list[NewRun]
    unreadable: list[Unreadable]
    more: bool
    """Whether more tasks may be due right now."""
    next_fire_at: datetime | None
    """When there is something to do again."""


def fire_due_tasks(connection: Connection, new_trace: NewTrace, clock: Clock) -> Fired:
    """Judges every nominal time that has come, of up to BATCH tasks, and queues the runs.

    A task whose schedule cannot be read misses its time and fires no more. `new_trace` begins a trace for a task's run
    and answers its traceparent.
    """
    now = clock.now()
    tasks, more = store.lock_due_tasks(connection, now=now, limit=BATCH)
    due = {task.id: _due(task, now) for task in tasks}
    _move_on(connection, tasks, due)
    _tell_completed(connection, tasks, due, now)
    occurrences, runs = _judge(connection, tasks, due, _scheduled(new_trace), now)
    unreadable = [found for found in due.values() if isinstance(found, Unreadable)]
    return Fired(now, occurrences, runs, unreadable, more, store.next_fire_time(connection))


def judge_due(connection: Connection, task: Task, new_trace: NewTrace, clock: Clock) -> Ahead:
    """Judges the times of one locked task that have come, as when it is resumed, and queues their runs.

    What came after `task.paused_at` and is not made up for was `paused`. Answers the status and the next times, which
    the caller stores; they are the task's own when none of its times has come.
    """
    now = clock.now()
    if task.next_fire_at is None or task.next_fire_at > now:
        return Ahead(TaskStatus.ACTIVE, task.next_fire_at, task.next_scheduled_for)
    due = _due(task, now)
    _judge(connection, [task], {task.id: due}, _scheduled(new_trace), now)
    return _ahead(due)


def fire_now(
    connection: Connection, tasks: list[Task], run_of: RunOf, now: datetime
) -> tuple[list[Occurrence], list[NewRun]]:
    """Fires locked tasks that no schedule fires, as if this were a nominal time of theirs; answers what that did."""
    at_once = Due(passed=[], times=[now], following=None)
    return _judge(connection, tasks, {task.id: at_once for task in tasks}, run_of, now)


def _scheduled(new_trace: NewTrace) -> RunOf:
    def run_of(task: Task, due_at: datetime) -> NewRun:
        return new_run(task, due_at=due_at, traceparent=new_trace(task.id))

    return run_of


def _due(task: Task, now: datetime) -> Due | Unreadable:
    """The nominal times of a task that have come, and the one after them."""
    assert task.next_scheduled_for is not None
    try:
        schedule = parse_schedule(task.schedule_kind, task.schedule_expr, task.timezone, task.schedule_anchor)
        return due_times(schedule, task.next_scheduled_for, now, fire_at=task.next_fire_at, border=task.paused_at)
    except Exception as error:
        # Nothing but arithmetic happens here. Whatever it stumbles over in one task must not stop all the others.
        reason = str(error) if isinstance(error, ScheduleFault) else f"{type(error).__name__}: {error}"
        return Unreadable(task.id, f"the schedule cannot be read: {reason}"[:_MAX_REASON_LENGTH])


def _ahead(due: Due | Unreadable) -> Ahead:
    following = None if isinstance(due, Unreadable) else due.following
    return Ahead(TaskStatus.COMPLETED if following is None else TaskStatus.ACTIVE, following, following)


def _move_on(connection: Connection, tasks: list[Task], due: dict[str, Due | Unreadable]) -> None:
    moves = []
    for task in tasks:
        assert task.next_fire_at is not None
        ahead = _ahead(due[task.id])
        moves.append(store.Move(task.id, task.next_fire_at, ahead.status, ahead.next_fire_at, ahead.next_scheduled_for))
    if store.move_on(connection, moves) < len(moves):
        raise TryAgain


def _tell_completed(connection: Connection, tasks: list[Task], due: dict[str, Due | Unreadable], now: datetime) -> None:
    """Publishes which schedules have run out, for the tasks that wait for that."""
    completed = [task for task in tasks if _ahead(due[task.id]).status is TaskStatus.COMPLETED]
    told = (replace(task, status=TaskStatus.COMPLETED) for task in completed)
    publish(connection, [DomainEvent("task.completed", task_payload(task)) for task in told], now)


def _judge(
    connection: Connection, tasks: list[Task], due: Mapping[str, Due | Unreadable], run_of: RunOf, now: datetime
) -> tuple[list[Occurrence], list[NewRun]]:
    """Gives all times their outcomes and queues the runs; answers both."""

    def take(task: Task, run: NewRun) -> str | None:
        window = timedelta(seconds=task.dedupe_window_seconds)
        return dedupe_store.take(connection, task.created_by, task.dedupe_key, run.id, window, now)

    choosy = [task.id for task in tasks if task.overlap is Overlap.SKIP]
    live = queue_store.live_runs_of(connection, choosy) if choosy else {}
    judgements: list[Judgement] = []
    # Whoever takes several dedupe keys takes them in one order, so that nobody waits in a circle.
    for task in sorted(tasks, key=lambda task: (task.created_by, task.dedupe_key)):
        found = due[task.id]
        if isinstance(found, Unreadable):
            judgements.append(Judgement([_missed(task, found.reason, now)]))
        else:
            judgements.append(judge(task, found, now, live_run=live.get(task.id), new_run=run_of, take=take))
    return _record(connection, judgements, now)


def _missed(task: Task, reason: str, now: datetime) -> Occurrence:
    assert task.next_scheduled_for is not None
    return Occurrence(task.id, task.next_scheduled_for, None, Outcome.MISSED, reason, None, now)


def _record(
    connection: Connection, judgements: list[Judgement], now: datetime
) -> tuple[list[Occurrence], list[NewRun]]:
    """Stores what was judged, but for times that have an outcome already: no time ever gets a second one, or run."""
    judged = [occurrence for judgement in judgements for occurrence in judgement.occurrences]
    added = occurrence_store.add_occurrences(connection, judged)
    occurrences = [one for one in judged if (one.task_id, one.scheduled_for) in added]
    started = {one.run_id for one in occurrences if one.outcome is Outcome.RAN}
    runs = [run for judgement in judgements for run in judgement.runs if run.id in started]
    queue_store.add_runs(connection, runs, now)
    return occurrences, runs
