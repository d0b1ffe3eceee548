"""Pausing, resuming, canceling and snoozing tasks. All but snoozing change nothing when it is so already."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.tasks.errors import TaskCanceled, TaskCompleted, TaskNotActive
from services.tasks.models.occurrence import Outcome
from services.tasks.models.run import ErrorClass, RunError
from services.tasks.models.task import Task, TaskStatus
from services.tasks.operations import scheduling
from services.tasks.operations.pending import drop_pending
from services.tasks.operations.probing import follow_task
from services.tasks.operations.scheduling import NewTrace
from services.tasks.operations.task import lock_own_task
from services.tasks.operations.task_audit import audit_change
from services.tasks.store import queue as queue_store
from services.tasks.store import task as task_store

_CANCELED = RunError(ErrorClass.CANCELED, "the task was canceled", retryable=False, step_id="")
_SNOOZED = (TaskStatus.ACTIVE, TaskStatus.COMPLETED)


@dataclass(frozen=True)
class Moved:
    """A task that has, or had already, the status that was asked for."""

    old: TaskStatus
    task: Task
    runs: int = 0
    """How many runs were canceled, or told to stop."""


@dataclass(frozen=True)
class Snoozed:
    """A task whose pending work was moved."""

    task: Task
    moved: int


Move = Callable[[Connection, Task, NewTrace, Clock], Moved]
"""Brings a locked task of the caller's into another status."""


def change_status(
    connection: Connection,
    task_id: str,
    status: TaskStatus,
    caller: Caller,
    new_trace: NewTrace,
    clock: Clock,
    *,
    note: str = "",
    request_id: str = "",
) -> Moved:
    """Brings a task into `status`, which is active, paused or canceled; the change goes to the audit, with a note.

    Raises TaskNotFound, TaskOfAnotherAgent, TaskCanceled, TaskCompleted.
    """
    task = lock_own_task(connection, task_id, caller)
    moved = MOVES[status](connection, task, new_trace, clock)
    action, told = _ACTIONS[status], moved.task
    audit_change(connection, action, task, told, caller, clock, runs=moved.runs, note=note, request_id=request_id)
    return moved


def snooze_task(
    connection: Connection,
    task_id: str,
    delay: timedelta,
    caller: Caller,
    clock: Clock,
    *,
    reason: str = "",
    request_id: str = "",
) -> Snoozed:
    """Moves the next fire time and the queued runs of a task by `delay`; what is overdue is moved from now.

    That goes to the audit with the reason. Raises TaskNotFound, TaskOfAnotherAgent, TaskNotActive.
    """
    task = lock_own_task(connection, task_id, caller)
    if task.status not in _SNOOZED:
        raise TaskNotActive(task_id, task.status)
    now = clock.now()
    runs, snoozed = queue_store.snooze_runs_of_task(connection, task_id, delay, now), task
    if task.next_fire_at is not None:
        fire_at = _later(max(task.next_fire_at, now), delay)
        snoozed = task_store.change_task(connection, task, next_fire_at=fire_at, updated_at=now)
    audit_change(connection, "task.snooze", task, snoozed, caller, clock, runs=runs, note=reason, request_id=request_id)
    return Snoozed(snoozed, runs + (snoozed is not task))


def _pause(connection: Connection, task: Task, new_trace: NewTrace, clock: Clock) -> Moved:
    """The schedule and the queued runs wait; what runs already goes on."""
    if task.status is TaskStatus.PAUSED:
        return Moved(task.status, task)
    _refuse_canceled(task)
    if task.status is TaskStatus.COMPLETED:
        raise TaskCompleted(task.id)
    now = clock.now()
    queue_store.pause_runs_of_task(connection, task.id, now)
    paused = task_store.change_task(connection, task, status=TaskStatus.PAUSED, paused_at=now, updated_at=now)
    follow_task(connection, task, paused, now)
    return Moved(task.status, paused)


def _resume(connection: Connection, task: Task, new_trace: NewTrace, clock: Clock) -> Moved:
    """The schedule and the queued runs go on; the times that passed meanwhile are judged."""
    _refuse_canceled(task)
    if task.status is not TaskStatus.PAUSED:
        return Moved(task.status, task)
    now = clock.now()
    queue_store.resume_runs_of_task(connection, task.id, now)
    ahead = scheduling.judge_due(connection, task, new_trace, clock)
    resumed = task_store.change_task(
        connection,
        task,
        status=ahead.status,
        paused_at=None,
        next_fire_at=ahead.next_fire_at,
        next_scheduled_for=ahead.next_scheduled_for,
        updated_at=now,
    )
    follow_task(connection, task, resumed, now)
    return Moved(task.status, resumed)


def _cancel(connection: Connection, task: Task, new_trace: NewTrace, clock: Clock) -> Moved:
    """The schedule and the queued runs end; what runs is told to stop."""
    if task.status is TaskStatus.CANCELED:
        return Moved(task.status, task)
    now = clock.now()
    drop_pending(connection, task, Outcome.CANCELED, "the task was canceled", now)
    runs = queue_store.cancel_live_of_task(connection, task.id, _CANCELED, now)
    canceled = task_store.change_task(
        connection,
        task,
        status=TaskStatus.CANCELED,
        paused_at=None,
        next_fire_at=None,
        next_scheduled_for=None,
        updated_at=now,
    )
    follow_task(connection, task, canceled, now)
    return Moved(task.status, canceled, runs)


def _refuse_canceled(task: Task) -> None:
    if task.status is TaskStatus.CANCELED:
        raise TaskCanceled(task.id)


def _later(instant: datetime, delay: timedelta) -> datetime:
    if delay > datetime.max.replace(tzinfo=UTC) - instant:
        raise InvalidArgument.of([Violation("delay_seconds", "leads beyond the year 9999")])
    return instant + delay


_ACTIONS = {TaskStatus.ACTIVE: "task.resume", TaskStatus.PAUSED: "task.pause", TaskStatus.CANCELED: "task.cancel"}
MOVES: Mapping[TaskStatus, Move] = {
    TaskStatus.ACTIVE: _resume,
    TaskStatus.PAUSED: _pause,
    TaskStatus.CANCELED: _cancel,
}
