"""Why a task that waits for a condition makes no run."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from services.chassis.clock import instant_text
from services.tasks.models.blocker import Blocker
from services.tasks.models.condition import Condition, Evaluation, ProbeState
from services.tasks.models.task import Task
from services.tasks.store import condition as store

# A worker asks for probes once a second.
_PROBE_IS_LATE_AFTER = timedelta(seconds=10)


def condition_blockers(
    connection: Connection, task: Task, last: Evaluation | None, now: datetime, *, has_run: bool
) -> Iterator[Blocker]:
    """What keeps an active task from making a run: that nobody probes it, or what was told last.

    With a run under way only what is wrong is told.
    """
    state = store.get_state(connection, task.id)
    if state is None or state.next_probe_at is None:
        return
    evidence: dict[str, Any] = {"next_probe_at": instant_text(state.next_probe_at)}
    if now - state.next_probe_at > _PROBE_IS_LATE_AFTER:
        late = int((now - state.next_probe_at).total_seconds())
        yield Blocker(
            "probe_late",
            f"the condition was to be probed {late} s ago, and no worker has asked for it",
            evidence | {"late_seconds": late},
            "start a worker: python -m services.worker",
        )
    if last is not None and last.number > state.evaluations_before:
        evidence |= {"number": last.number, "evaluated_at": instant_text(last.evaluated_at)}
        if last.error:
            yield _failed(task, last, evidence)
        elif not has_run:
            yield _told(task, state, last, evidence)
    elif not has_run:
        yield Blocker("not_probed", f"the condition is probed for the first time{_when(state)}", evidence)


def _failed(task: Task, last: Evaluation, evidence: dict[str, Any]) -> Blocker:
    action = f"PUT /tasks/{task.id} with another condition"
    return Blocker("probe_failed", f"the last probe told nothing: {last.error}"[:1000], evidence, action)


def _told(task: Task, state: ProbeState, last: Evaluation, evidence: dict[str, Any]) -> Blocker:
    if not state.last_holds:
        message = f"the condition was not true at {evidence['evaluated_at']}, and is probed again{_when(state)}"
        return Blocker("condition_false", message, evidence | {"excerpt": last.excerpt})
    cooldown = Condition.of(task).cooldown
    if cooldown and state.last_fired_at:
        until = instant_text(state.last_fired_at + cooldown)
        message = f"the condition has fired, and while it stays true it does not again before {until}"
        return Blocker("in_cooldown", message, evidence | {"until": until})
    message = "the condition is true and has fired: it fires again when it has been false, and becomes true"
    return Blocker("condition_unchanged", message, evidence)


def _when(state: ProbeState) -> str:
    if state.lease_token is not None:
        return " right now"
    assert state.next_probe_at is not None
    return f" at {instant_text(state.next_probe_at)}"
