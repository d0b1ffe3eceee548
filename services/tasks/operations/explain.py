"""Why a run is not under way, and why a task has not fired: what is in the way, in the order to remove it in."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from services.chassis.clock import Clock, instant_text
from services.tasks.errors import RunNotFound, TaskNotFound
from services.tasks.models.blocker import Blocker, Explanation, TaskExplanation
from services.tasks.models.occurrence import Occurrence, Outcome
from services.tasks.models.run import RunStatus
from services.tasks.models.schedule import ScheduleFault, parse_schedule
from services.tasks.models.task import ScheduleKind, Task, TaskStatus
from services.tasks.store import explain as store
from services.tasks.store.history import get_run
from services.tasks.store.task import get_task, list_occurrences

# A worker asks for work at least twice a minute: it waits 20 s for an answer.
_WORKER_IS_GONE_AFTER = timedelta(seconds=60)
# The scheduler looks twice a second.
_SCHEDULER_IS_LATE_AFTER = timedelta(seconds=5)
_COUNTED_AHEAD = 1000


def explain_run(connection: Connection, run_id: str, clock: Clock) -> tuple[RunStatus, Explanation]:
    """How far a run has come, and what is in its way. Raises RunNotFound."""
    # The live one first: what has ended meanwhile is then found in the history.
    row = store.live_run(connection, run_id)
    run = get_run(connection, run_id)
    if run is None:
        raise RunNotFound(run_id)
    if row is None or run.status in _ENDED:
        why = f": {run.error.message}" if run.error else ""
        return run.status, Explanation(f"the run has {_ENDED[run.status]}{why}", [])
    blockers = list(_run_blockers(connection, row, clock.now()))
    return run.status, Explanation(_summary(blockers, _progress(row)), blockers)


def explain_task(connection: Connection, task_id: str, clock: Clock) -> TaskExplanation:
    """What keeps a task's schedule from firing, and its oldest live run from going on. Raises TaskNotFound."""
    task = get_task(connection, task_id)
    if task is None:
        raise TaskNotFound(task_id)
    live_run_id = store.oldest_live_run(connection, task_id)
    last = next(iter(list_occurrences(connection, task_id, limit=1, before=None, outcomes=())), None)
    # It may have ended just now.
    live = store.live_run(connection, live_run_id) if live_run_id else None
    blockers = [*_schedule_blockers(task, live, clock.now()), *_last_time_blockers(task, last, live)]
    blockers += _run_blockers(connection, live, clock.now()) if live is not None else ()
    summary = _summary(blockers, "nothing is in the way")
    return TaskExplanation(summary, blockers, task.next_fire_at, last, live_run_id)


def _run_blockers(connection: Connection, run: Row[Any], now: datetime) -> Iterator[Blocker]:
    if run.cancel_requested_at is not None:
        yield Blocker(
            "cancel_requested",
            "the run was called off and stops before its next step",
            {"cancel_requested_at": _text(run.cancel_requested_at)},
        )
    if run.reported_status is not None:
        yield from _reported_blockers(run)
    elif run.lease_token is None:
        yield from _waiting_blockers(connection, run, now)


def _reported_blockers(run: Row[Any]) -> Iterator[Blocker]:
    if run.reported_status == RunStatus.AWAITING_APPROVAL:
        yield Blocker(
            "awaiting_approval",
            "somebody other than its reporter has to decide about the run",
            {"requested_by": run.created_by},
            f"POST /agents/tasks/{run.id}/approve",
        )
    else:
        yield Blocker(
            "reported_from_outside",
            f"the run happens outside, and was last reported as {run.reported_status}",
            {"agent_id": run.created_by, "updated_at": _text(run.updated_at)},
            f"report its progress: PATCH /agents/tasks/{run.id}",
        )


def _waiting_blockers(connection: Connection, run: Row[Any], now: datetime) -> Iterator[Blocker]:
    """What keeps a queued run from being leased."""
    if run.paused_at is not None:
        yield _paused(run.task_id, run.paused_at)
    if run.due_at > now:
        yield _not_due(run)
    no_worker = _no_worker(connection, run.role, now)
    if no_worker is not None:
        yield no_worker
    in_line = list(_key_blockers(connection, run))
    yield from in_line
    if run.paused_at is None and run.due_at <= now and no_worker is None and not in_line:
        yield from _queue_blockers(connection, run, now)


def _not_due(run: Row[Any]) -> Blocker:
    evidence: dict[str, Any] = {"due_at": _text(run.due_at)}
    if not run.retries or run.error is None:
        return Blocker("not_due", f"the run is not due before {_text(run.due_at)}", evidence)
    evidence |= {"retry": run.retries, "max_retries": run.max_retries, "error": run.error}
    message = f"retry {run.retries} of {run.max_retries} waits until {_text(run.due_at)}, after a failure"
    return Blocker("retry_wait", message, evidence)


def _no_worker(connection: Connection, role: str, now: datetime) -> Blocker | None:
    seen = store.last_seen(connection, role)
    # One that has no room for more runs does not ask, but holds leases.
    if (seen is not None and now - seen < _WORKER_IS_GONE_AFTER) or store.is_served(connection, role, now):
        return None
    evidence = {"role": role, "last_seen_at": _text(seen) if seen else None}
    if role:
        message = f"nobody asks for runs of the role {role!r}"
        return Blocker(
            "no_worker", message, evidence, f"start an agent that leases the role {role!r}: POST /runs:lease"
        )
    return Blocker("no_worker", "no worker asks for runs", evidence, "start one: python -m services.worker")


def _key_blockers(connection: Connection, run: Row[Any]) -> Iterator[Blocker]:
    key = run.concurrency_key
    holder = store.holder_of(connection, key) if key else None
    if holder is not None:
        until = _text(holder.lease_expires_at)
        yield Blocker(
            "concurrency_key_held",
            f"run {holder.id} is under way with the concurrency key {key!r}, and holds it until {until} at least",
            {"concurrency_key": key, "run_id": holder.id, "task": holder.task, "lease_expires_at": until},
            f"POST /runs/{holder.id}/cancel",
        )
    elif key and run.blocked and (head := store.head_of(connection, run.role, key)):
        yield Blocker(
            "behind_same_concurrency_key",
            f"run {head} with the same concurrency key {key!r} comes first",
            {"concurrency_key": key, "run_id": head},
        )


def _queue_blockers(connection: Connection, run: Row[Any], now: datetime) -> Iterator[Blocker]:
    ahead = store.count_ahead(connection, run, now, at_most=_COUNTED_AHEAD)
    if ahead:
        shown = f"{ahead}{'+' if ahead == _COUNTED_AHEAD else ''}"
        yield Blocker(
            "workers_busy",
            f"{shown} runs that are due earlier, and not less urgent, come first",
            {"runs_ahead": ahead, "role": run.role},
            "start more workers",
        )


def _schedule_blockers(task: Task, live: Row[Any] | None, now: datetime) -> Iterator[Blocker]:
    if task.status is TaskStatus.CANCELED:
        yield Blocker("task_canceled", "the task is canceled, and that is final", {}, "create a new task")
    elif task.status is TaskStatus.COMPLETED:
        action = f"PUT /tasks/{task.id} with a new schedule"
        yield Blocker("task_completed", "the schedule has fired for the last time", {}, action)
    elif task.paused_at is not None:
        # A run that waits for the same says so itself.
        if live is None or live.paused_at is None:
            yield _paused(task.id, task.paused_at)
    elif task.schedule_kind is not ScheduleKind.MANUAL:
        yield from _next_time_blockers(task, now)
    elif live is None:
        action = f"POST /tasks/{task.id}/run_now"
        yield Blocker("no_schedule", "the task is manual: only run_now makes it run", {}, action)


def _paused(task_id: str, paused_at: datetime) -> Blocker:
    evidence = {"task_id": task_id, "paused_at": _text(paused_at)}
    return Blocker("task_paused", f"task {task_id} is paused", evidence, f"POST /tasks/{task_id}/resume")


def _next_time_blockers(task: Task, now: datetime) -> Iterator[Blocker]:
    """What an active schedule waits for."""
    if task.next_fire_at is None:
        yield _unreadable(task)
        return
    evidence = {"next_fire_at": _text(task.next_fire_at), "next_scheduled_for": _text(task.next_scheduled_for)}
    if task.next_fire_at > now:
        snoozed = task.next_scheduled_for is not None and task.next_scheduled_for < task.next_fire_at
        when = f"{_text(task.next_fire_at)}{', for it was snoozed' if snoozed else ''}"
        yield Blocker("not_due", f"the schedule fires next at {when}", evidence)
    elif now - task.next_fire_at > _SCHEDULER_IS_LATE_AFTER:
        late = int((now - task.next_fire_at).total_seconds())
        message = f"the schedule was to fire {late} s ago, and no scheduler has looked"
        action = "see that the tasks service runs: GET /health"
        yield Blocker("scheduler_late", message, evidence | {"late_seconds": late}, action)


def _unreadable(task: Task) -> Blocker:
    action = f"PUT /tasks/{task.id} with a schedule that can be read"
    evidence = {"schedule_expr": task.schedule_expr, "timezone": task.timezone}
    try:
        parse_schedule(task.schedule_kind, task.schedule_expr, task.timezone, task.schedule_anchor)
    except ScheduleFault as fault:
        return Blocker("schedule_unreadable", f"the schedule cannot be read: {fault}", evidence, action)
    return Blocker("schedule_unreadable", "the schedule has no next time", evidence, action)


def _last_time_blockers(task: Task, last: Occurrence | None, live: Row[Any] | None) -> Iterator[Blocker]:
    """Why the last time that has passed made no run."""
    if last is None or last.outcome not in _NO_RUN or task.status is TaskStatus.CANCELED:
        return
    if last.outcome is Outcome.MISSED and live is not None:
        return  # made up for
    code, action = _NO_RUN[last.outcome]
    evidence = {"scheduled_for": _text(last.scheduled_for), "reason": last.reason, "run_id": last.run_id}
    message = f"the time {_text(last.scheduled_for)} made no run: {last.reason}"
    yield Blocker(code, message, evidence, action.format(task.id))


def _progress(run: Row[Any]) -> str:
    if run.lease_token is not None:
        return f"worker {run.lease_owner} works on the run, attempt {run.attempt}, until {_text(run.lease_expires_at)}"
    return "the run is about to be leased"


def _summary(blockers: list[Blocker], nothing: str) -> str:
    return blockers[0].message if blockers else nothing


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant_text(instant)


_ENDED = {
    RunStatus.SUCCEEDED: "succeeded",
    RunStatus.FAILED: "failed",
    RunStatus.SKIPPED: "been skipped",
    RunStatus.CANCELED: "been canceled",
}
_NO_RUN = {
    Outcome.SUPPRESSED_DUPLICATE: ("duplicate_suppressed", "PUT /tasks/{} with a shorter dedupe_window_seconds"),
    Outcome.SKIPPED_OVERLAP: ("overlap_skipped", "PUT /tasks/{} with overlap queue"),
    # Whatever it was missed for: another misfire rule would only help the next one.
    Outcome.MISSED: ("times_missed", "POST /tasks/{}/run_now"),
}
