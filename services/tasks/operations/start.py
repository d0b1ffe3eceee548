"""Starting tasks by hand: runs of them are queued, one or many at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, ServiceError, Violation
from services.tasks.errors import TaskNotActive, TaskNotFound
from services.tasks.models.run import NewRun
from services.tasks.models.task import Task, TaskStatus
from services.tasks.operations.depth import depth_of_run
from services.tasks.operations.new_run import new_run, params_fault
from services.tasks.operations.task import require_owner
from services.tasks.store import dedupe, queue
from services.tasks.store import task as task_store

# Whose schedule has fired for the last time can still be started by hand.
MAX_AHEAD = timedelta(days=3650)
_STARTED_BY_HAND = (TaskStatus.ACTIVE, TaskStatus.COMPLETED)


@dataclass(frozen=True)
class Start:
    """What a caller says of a run to be queued."""

    task_id: str
    params: Mapping[str, Any]
    caller: Caller
    traceparent: str
    due_at: datetime | None = None
    """None: at once. What is past counts as now, so that nobody gets ahead in the queue by it."""
    priority: int | None = None
    """None: the task's."""
    batch_id: str = ""


@dataclass(frozen=True)
class _Accepted:
    """A run that may be queued."""

    task: Task
    start: Start
    depth: int | None
    """How many events and runs led to it; None for one that somebody starts on its own."""


@dataclass(frozen=True)
class Started:
    """What became of it."""

    task_id: str
    run_id: str
    role: str
    """Whose workers have something to do now."""
    duplicate: bool
    """No run was made: this one has the same dedupe key and is not older than the window."""


def start_each(connection: Connection, starts: Sequence[Start], clock: Clock) -> list[Started | ServiceError]:
    """Queues each run that may be queued; for each what became of it.

    The errors are TaskNotFound, TaskOfAnotherAgent, TaskNotActive, RunNotInProgress, LoopCut, and InvalidArgument for
    parameters that are too much.
    """
    checked = _checked(connection, starts, clock.now())
    accepted = [one for one in checked if isinstance(one, _Accepted)]
    started = iter(_start(connection, accepted, clock.now()))
    return [one if isinstance(one, ServiceError) else next(started) for one in checked]


def start_all(connection: Connection, starts: Sequence[Start], clock: Clock) -> list[Started]:
    """Queues all the runs, or none. Raises as `start_each` says, naming the run by its place in `runs`."""
    accepted: list[_Accepted] = []
    faults: list[Violation] = []
    for index, one in enumerate(_checked(connection, starts, clock.now())):
        match one:
            case _Accepted():
                accepted.append(one)
            case InvalidArgument():
                faults += (Violation(f"runs[{index}].{fault.field}", fault.description) for fault in one.violations)
            case _:
                one.violations = (Violation(f"runs[{index}].task_id", one.message),)
                raise one
    if faults:
        raise InvalidArgument.of(faults)
    return _start(connection, accepted, clock.now())


def _checked(connection: Connection, starts: Sequence[Start], now: datetime) -> list["_Accepted | ServiceError"]:
    """For each the task, which nobody changes before this transaction ends, or why it cannot be started."""
    # Whoever pauses or cancels a task would not see a run that is not there yet.
    tasks = task_store.keep_tasks(connection, {start.task_id for start in starts})
    return [_startable(connection, tasks.get(start.task_id), start, now) for start in starts]


def _startable(connection: Connection, task: Task | None, start: Start, now: datetime) -> "_Accepted | ServiceError":
    try:
        if task is None:
            raise TaskNotFound(start.task_id)
        require_owner(task, start.caller)
        require_startable(task)
        depth = depth_of_run(connection, start.caller)
    except ServiceError as refused:
        return refused
    fault = params_fault(task, start.params) or _time_fault(start, now)
    return InvalidArgument.of([fault]) if fault else _Accepted(task, start, depth)


def _time_fault(start: Start, now: datetime) -> Violation | None:
    if start.due_at is None or start.due_at - now <= MAX_AHEAD:
        return None
    return Violation("due_at", f"lies more than {MAX_AHEAD.days} days ahead: no run waits for so long")


def require_startable(task: Task) -> None:
    """Raises TaskNotActive for a task that is paused or canceled."""
    if task.status not in _STARTED_BY_HAND:
        raise TaskNotActive(task.id, task.status)


def _start(connection: Connection, accepted: Sequence["_Accepted"], now: datetime) -> list[Started]:
    runs = [
        new_run(
            one.task,
            due_at=max(one.start.due_at or now, now),
            traceparent=one.start.traceparent,
            params=one.start.params,
            priority=one.start.priority,
            batch_id=one.start.batch_id,
            depth=one.depth,
        )
        for one in accepted
    ]
    tasks = [one.task for one in accepted]
    earlier = _earlier(connection, tasks, runs, now)
    queue.add_runs(connection, [run for run in runs if run.id not in earlier], now)
    return [
        Started(task.id, earlier.get(run.id, run.id), task.role, duplicate=run.id in earlier)
        for task, run in zip(tasks, runs, strict=True)
    ]


def _earlier(connection: Connection, tasks: Sequence[Task], runs: Sequence[NewRun], now: datetime) -> dict[str, str]:
    """For each run that is one too many the one that stands for its task's dedupe key already.

    Whoever takes several keys takes them in one order, so that nobody waits in a circle.
    """
    deduper = _Deduper(connection, now)
    in_order = sorted(zip(tasks, runs, strict=True), key=lambda item: (item[0].created_by, item[0].dedupe_key))
    holders = ((run.id, deduper.earlier(task, run.id)) for task, run in in_order)
    return {run_id: holder for run_id, holder in holders if holder is not None}


@dataclass
class _Deduper:
    """Asks once for each dedupe key of a batch."""

    connection: Connection
    now: datetime
    _taken: dict[tuple[str, str], str] = field(default_factory=dict)
    _held: dict[tuple[str, str, timedelta], str] = field(default_factory=dict)

    def earlier(self, task: Task, run_id: str) -> str | None:
        """The run that stands for the task's key already; None when from now on `run_id` does, or nothing does."""
        key, window = task.dedupe_key, timedelta(seconds=task.dedupe_window_seconds)
        if not key or not window:
            return None
        owner = task.created_by
        known = self._taken.get((owner, key)) or self._held.get((owner, key, window))
        if known is not None:
            return known
        holder = dedupe.take(self.connection, owner, key, run_id, window, self.now)
        if holder is None:
            self._taken[owner, key] = run_id
        else:
            self._held[owner, key, window] = holder
        return holder
