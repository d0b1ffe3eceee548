"""Runs that are made of tasks."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from services.chassis.errors import Violation
from services.chassis.ids import new_id
from services.pipeline import definition
from services.tasks.models.event import Trigger
from services.tasks.models.run import NewRun
from services.tasks.models.task import Overlap, Task

MAX_PAYLOAD_BYTES = 1024 * 1024
_RUN_NAME_LENGTH = 64
# Beside `pipeline` and `params`, in the payload of a run that an event made. A task's own payload has no such key.
_EVENT = "event"


def new_run(
    task: Task,
    *,
    due_at: datetime,
    traceparent: str,
    params: Mapping[str, Any] | None = None,
    priority: int | None = None,
    batch_id: str = "",
    trigger: Trigger | None = None,
    event: Mapping[str, Any] | None = None,
    depth: int | None = None,
    handoff_id: str | None = None,
) -> NewRun:
    """A run of the task as it is now: later changes of the task do not touch it.

    Each of `params` replaces the task's own of that name; see `params_fault` for what they may be. `priority`
    defaults to the task's. `trigger` is the event that makes the run: it is kept with it, in its payload. `event` is
    what stands there instead when nobody published it; then `depth` says how many events and runs led to the run.
    `handoff_id` is the hand-off of a workflow whose work it is.
    """
    payload = _with_params(task.payload, params) if params else task.payload
    if trigger:
        payload = _with_event(payload, trigger.topic, trigger.payload)
    elif event is not None:
        payload = _with_event(payload, "", event)
    return NewRun(
        id=new_id(),
        task_id=task.id,
        task=task.title[:_RUN_NAME_LENGTH],
        priority=priority or task.priority,
        due_at=due_at,
        payload=payload,
        traceparent=traceparent,
        created_by=task.created_by,
        role=task.role,
        batch_id=batch_id,
        concurrency_key=_concurrency_key(task),
        max_retries=task.max_retries,
        backoff_strategy=task.backoff_strategy,
        event_id=trigger.event_id if trigger else None,
        event_depth=trigger.depth if trigger else depth,
        handoff_id=handoff_id,
    )


def parted(payload: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The payload of a run without its event, and the event's topic and payload, if there is one."""
    return {name: value for name, value in payload.items() if name != _EVENT}, payload.get(_EVENT)


def params_fault(task: Task, params: Mapping[str, Any], field: str = "params") -> Violation | None:
    """What is wrong with the parameters of one run: that its payload outgrows what a task's own may be."""
    if not params:
        return None
    payload = _with_params(task.payload, params)
    if definition.is_too_deep(payload):
        return Violation(field, f"make the payload nest deeper than {definition.MAX_DEPTH} levels")
    if (size := len(orjson.dumps(payload))) > MAX_PAYLOAD_BYTES:
        return Violation(field, f"make the payload {size} bytes as JSON, at most {MAX_PAYLOAD_BYTES} are allowed")
    return None


def _with_params(payload: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    return {**payload, "params": {**payload.get("params", {}), **params}}


def _with_event(payload: Mapping[str, Any], topic: str, event: Mapping[str, Any]) -> dict[str, Any]:
    return {**payload, _EVENT: {"topic": topic, "payload": event}}


def _concurrency_key(task: Task) -> str:
    """The task's own; where its runs shall wait for each other and it has none, one that no other task has."""
    return task.concurrency_key or (f"task/{task.id}" if task.overlap is Overlap.QUEUE else "")
