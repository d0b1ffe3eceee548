"""Why a run is not under way, and why a task has not fired: what is in the way, in the order to remove it in."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from services.chassis.clock import Clock, instant_text
from services.tasks.errors import RunNotFound, TaskNotFound
from services.tasks.models.blocker import Blocker, Explanation, TaskExplanation
from services.tasks.models.condition import Evaluation
from services.tasks.models.occurrence import Occurrence, Outcome
from services.tasks.models.run import ErrorClass, RunStatus
from services.tasks.models.schedule import ScheduleFault, parse_schedule
from services.tasks.models.task import Overlap, ScheduleKind, Task, TaskStatus
from services.tasks.operations.approval import get_approval
from services.tasks.operations.explain_condition import condition_blockers
from services.tasks.operations.explain_event import event_blockers
from services.tasks.store import approval as approval_store
from services.tasks.store import condition as condition_store
from services.tasks.store import explain as store
from services.tasks.store.event import last_delivery
from services.tasks.store.history import get_run
from services.tasks.store.statistics import latest_run
from services.tasks.store.task import get_task, list_occurrences

# A worker asks for work at least twice a minute: it waits a few seconds for an answer, 30 at most.
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
    """What keeps a task's oldest live run from going on, and its schedule from firing. Raises TaskNotFound."""
    task, now = get_task(connection, task_id), clock.now()
    if task is None:
        raise TaskNotFound(task_id)
    live_run_id = store.oldest_live_run(connection, task_id)
    evaluation = next(iter(condition_store.list_evaluations(connection, task_id, limit=1)), None)
    last = next(iter(list_occurrences(connection, task_id, limit=1, before=None, outcomes=())), None)
    # It may have ended just now.
    live = store.live_run(connection, live_run_id) if live_run_id else None
    of_run = list(_run_blockers(connection, live, now)) if live is not None else []
    if task.status is TaskStatus.CANCELED:
        canceled = Blocker("task_canceled", "the task is canceled, and that is final", {}, "create a new task")
        blockers = [canceled, *of_run]
    else:
        of_schedule = _schedule_blockers(connection, task, evaluation, now, has_run=live is not None)
        # What has fired and waits comes before what is to fire.
        blockers = _each_once([*of_run, *of_schedule, *_last_time_blockers(connection, task, last, now)])
    summary = _summary(blockers, _progress(live) if live is not None else "nothing is in the way")
    delivery = last_delivery(connection, task_id)
    probing = condition_store.get_state(connection, task_id)
    next_probe_at = probing.next_probe_at if probing else None
    return TaskExplanation(summary, blockers, task.next_fire_at, last, live_run_id, delivery, evaluation, next_probe_at)


def _run_blockers(connection: Connection, run: Row[Any], now: datetime) -> Iterator[Blocker]:
    if run.cancel_requested_at is not None:
        yield Blocker(
            "cancel_requested",
            "the run was called off and stops before its next step",
            {"cancel_requested_at": _text(run.cancel_requested_at)},
        )
    if run.reported_status == RunStatus.AWAITING_APPROVAL:
        yield _awaits_approval(connection, run)
    elif run.reported_status is not None:
        yield _reported_from_outside(run)
    elif run.lease_token is None:
        yield from _waiting_blockers(connection, run, now)


def _awaits_approval(connection: Connection, run: Row[Any]) -> Blocker:
    approval_id = approval_store.pending_of_run(connection, run.id)
    if approval_id is None:  # it was asked by a version that knew no questions
        return Blocker(
            "awaiting_approval",
            "somebody other than its reporter has to decide about the run",
            {"requested_by": run.created_by},
            f"POST /agents/tasks/{run.id}/approve",
        )
    approval = get_approval(connection, approval_id)
    what = f"step {approval.step_id!r}" if approval.step_id else "the run"
    whom = f"an agent with the role {approval.approver_role!r}" if approval.approver_role else "somebody"
    evidence: dict[str, Any] = {"approval_id": approval_id, "requested_by": approval.requested_by}
    if approval.step_id:
        evidence["step_id"] = approval.step_id
    if approval.expires_at is not None:
        evidence["expires_at"] = _text(approval.expires_at)
    return Blocker(
        "awaiting_approval",
        f"{whom} other than who asked has to decide about {what}",
        evidence,
        f"POST /approvals/{approval_id}/approve",
    )


def _reported_from_outside(run: Row[Any]) -> Blocker:
    return Blocker(
        "reported_from_outside",
        f"the run happens outside, and was last reported as {run.reported_status}",
        {"agent_id": run.created_by, "updated_at": _text(run.updated_at)},
        f"PATCH /agents/tasks/{run.id} with the status that it ended with",
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
    if run.error is not None and run.error["class"] == ErrorClass.BUDGET_EXCEEDED:
        return Blocker(
            "budget_exceeded",
            f"it is kept back, and looked at again at {_text(run.due_at)}: {run.error['message']}",
            evidence | {"error": run.error},
            "raise the hard_limit: PATCH /budgets/{budget_id}; or wait until its period ends",
        )
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
        action = f"start an agent that leases the role {role!r}: POST /runs:lease"
        return Blocker("no_worker", f"nobody asks for runs of the role {role!r}", evidence, action)
    return Blocker("no_worker", "no worker asks for runs", evidence, "start a worker: python -m services.worker")


def _key_blockers(connection: Connection, run: Row[Any]) -> Iterator[Blocker]:
    key = run.concurrency_key
    holder = store.holder_of(connection, key) if key else None
    if holder is not None:
        yield _key_held(key, holder)
    elif key and run.blocked and (head := store.head_of(connection, run.role, key)):
        yield Blocker(
            "behind_same_concurrency_key",
            f"run {head} with the same concurrency key {key!r} comes first",
            {"concurrency_key": key, "run_id": head},
        )


def _key_held(key: str, holder: Row[Any]) -> Blocker:
    until = _text(holder.lease_expires_at)
    evidence = {"concurrency_key": key, "run_id": holder.id, "task": holder.task, "lease_expires_at": until}
    if holder.cancel_requested_at is not None:
        message = (
            f"run {holder.id} holds the concurrency key {key!r}; it was called off, and stops before its next step"
        )
        evidence["cancel_requested_at"] = _text(holder.cancel_requested_at)
        return Blocker("concurrency_key_held", message, evidence)
    message = f"run {holder.id} is under way with the concurrency key {key!r}, and holds it until {until} at least"
    return Blocker("concurrency_key_held", message, evidence, f"POST /runs/{holder.id}/cancel")


def _queue_blockers(connection: Connection, run: Row[Any], now: datetime) -> Iterator[Blocker]:
    ahead = store.count_ahead(connection, run, now, at_most=_COUNTED_AHEAD)
    if ahead:
        shown = f"{ahead}{'+' if ahead == _COUNTED_AHEAD else ''}"
        yield Blocker(
            "workers_busy",
            f"{shown} runs that are due earlier, and not less urgent, come first",
            {"runs_ahead": ahead, "role": run.role},
            f"start more agents that lease the role {run.role!r}" if run.role else "start more workers",
        )


def _schedule_blockers(
    connection: Connection, task: Task, evaluation: Evaluation | None, now: datetime, *, has_run: bool
) -> Iterator[Blocker]:
    """What keeps a task that is not canceled from making another run."""
    unreadable = _unreadable(task)
    if task.paused_at is not None:
        yield _paused(task.id, task.paused_at)
    if unreadable is not None:
        # The scheduler takes it for one without a next time, or has still to find out.
        yield unreadable
    elif task.status is TaskStatus.COMPLETED:
        action = f"PUT /tasks/{task.id} with a new schedule"
        yield Blocker("task_completed", "the schedule has fired for the last time", {}, action)
    elif task.schedule_kind is ScheduleKind.EVENT:
        if task.status is TaskStatus.ACTIVE:
            duplicate = _duplicate(connection, task, now)
            yield from event_blockers(connection, task, has_run=has_run, duplicate=duplicate)
    elif task.schedule_kind is ScheduleKind.CONDITION:
        if task.status is TaskStatus.ACTIVE:
            yield from condition_blockers(connection, task, evaluation, now, has_run=has_run)
    elif task.status is TaskStatus.ACTIVE and task.schedule_kind is not ScheduleKind.MANUAL:
        yield from _next_time_blockers(task, now)
    elif task.status is TaskStatus.ACTIVE and not has_run:
        yield from _until_run_now(
            connection, task, "no_schedule", "the task is manual: only run_now makes it run", {}, now
        )


def _paused(task_id: str, paused_at: datetime) -> Blocker:
    evidence = {"task_id": task_id, "paused_at": _text(paused_at)}
    return Blocker("task_paused", f"task {task_id} is paused", evidence, f"POST /tasks/{task_id}/resume")


def _unreadable(task: Task) -> Blocker | None:
    """That the schedule means nothing any more, such as one in a timezone that was abolished."""
    try:
        parse_schedule(task.schedule_kind, task.schedule_expr, task.timezone, task.schedule_anchor)
    except ScheduleFault as fault:
        return _schedule_unreadable(task, f"the schedule cannot be read: {fault}")
    return None


def _schedule_unreadable(task: Task, message: str) -> Blocker:
    evidence = {"schedule_expr": task.schedule_expr, "timezone": task.timezone}
    action = f"PUT /tasks/{task.id} with a schedule that can be read"
    return Blocker("schedule_unreadable", message, evidence, action)


def _next_time_blockers(task: Task, now: datetime) -> Iterator[Blocker]:
    """What an active schedule waits for."""
    if task.next_fire_at is None or task.next_scheduled_for is None:
        yield _schedule_unreadable(task, "the schedule has no next time")
        return
    evidence = {"next_fire_at": _text(task.next_fire_at), "next_scheduled_for": _text(task.next_scheduled_for)}
    if task.next_fire_at > now:
        snoozed = task.next_scheduled_for < task.next_fire_at
        when = f"{_text(task.next_fire_at)}{', for it was snoozed' if snoozed else ''}"
        yield Blocker("not_due", f"the schedule fires next at {when}", evidence)
    elif now - task.next_fire_at > _SCHEDULER_IS_LATE_AFTER:
        late = int((now - task.next_fire_at).total_seconds())
        message = f"the schedule was to fire {late} s ago, and no scheduler has looked"
        yield Blocker("scheduler_late", message, evidence | {"late_seconds": late}, "restart the tasks service")


def _last_time_blockers(
    connection: Connection, task: Task, last: Occurrence | None, now: datetime
) -> Iterator[Blocker]:
    """Why the last time that has passed made no run, as long as none was made since and it would be so again."""
    if last is None or last.outcome not in _NO_RUN or _has_run_since(connection, last):
        return
    evidence = {"scheduled_for": _text(last.scheduled_for), "reason": last.reason, "run_id": last.run_id}
    message = f"the time {_text(last.scheduled_for)} made no run: {last.reason}"
    if last.outcome is Outcome.MISSED:
        # Whatever it was missed for: another misfire rule would only help the next one.
        yield from _until_run_now(connection, task, "times_missed", message, evidence, now)
    elif last.outcome is Outcome.SKIPPED_OVERLAP and task.overlap is Overlap.SKIP:
        yield Blocker("overlap_skipped", message, evidence, f'PUT /tasks/{task.id} with {{"overlap": "queue"}}')
    elif last.outcome is Outcome.SUPPRESSED_DUPLICATE:
        still = _duplicate(connection, task, now)
        action = "" if still else f"POST /tasks/{task.id}/run_now"
        yield Blocker("duplicate_suppressed", message, (still.evidence if still else {}) | evidence, action)


def _until_run_now(
    connection: Connection, task: Task, code: str, message: str, evidence: dict[str, Any], now: datetime
) -> Iterator[Blocker]:
    """A blocker that `run_now` removes, behind what keeps that from making a run."""
    duplicate = _duplicate(connection, task, now)
    if duplicate is not None:
        yield duplicate
    yield Blocker(code, message, evidence, f"POST /tasks/{task.id}/run_now")


def _duplicate(connection: Connection, task: Task, now: datetime) -> Blocker | None:
    """That no run of the task is made right now, for an earlier one stands for its dedupe key. It passes by itself."""
    key, window = task.dedupe_key, timedelta(seconds=task.dedupe_window_seconds)
    holder = store.holder_of_dedupe_key(connection, task.created_by, key) if key and window else None
    if holder is None or holder.created_at + window <= now:
        return None
    until = _text(holder.created_at + window)
    message = f"run {holder.run_id} stands for the dedupe key {key!r} until {until}: run_now makes no other"
    return Blocker("duplicate_suppressed", message, {"dedupe_key": key, "run_id": holder.run_id, "until": until})


def _has_run_since(connection: Connection, last: Occurrence) -> bool:
    """Whether the task has made a run after its last time, or together with it."""
    newest = latest_run(connection, last.task_id)
    return newest is not None and newest.created_at >= last.decided_at and newest.id != last.run_id


def _progress(run: Row[Any]) -> str:
    if run.lease_token is not None:
        return f"worker {run.lease_owner} works on the run, attempt {run.attempt}, until {_text(run.lease_expires_at)}"
    return "the run is about to be leased"


def _each_once(blockers: Iterable[Blocker]) -> list[Blocker]:
    """A task that is paused says so, and so does its run."""
    told: list[Blocker] = []
    for blocker in blockers:
        if blocker not in told:
            told.append(blocker)
    return told


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
_NO_RUN = (Outcome.SUPPRESSED_DUPLICATE, Outcome.SKIPPED_OVERLAP, Outcome.MISSED)
