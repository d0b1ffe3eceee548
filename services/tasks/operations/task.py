"""Creating and starting tasks."""

from collections.abc import Container
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import new_id
from services.pipeline import definition
from services.tasks.errors import CreatedByNotCaller, TaskNotActive, TaskNotFound
from services.tasks.models.run import NewRun
from services.tasks.models.schedule import ScheduleFault, parse_schedule
from services.tasks.models.task import NewTask, ScheduleKind, Task, TaskStatus
from services.tasks.operations.tool import tool_faults
from services.tasks.store import queue as queue_store
from services.tasks.store import task as task_store

MAX_PAYLOAD_BYTES = 1024 * 1024
_RUN_NAME_LENGTH = 64


def create_task(connection: Connection, new: NewTask, caller: Caller, clock: Clock) -> Task:
    """Checks the whole task, collecting every fault, and stores it."""
    if new.created_by not in ("", caller.agent_id) and not caller.holds("admin"):
        raise CreatedByNotCaller
    now = clock.now()
    next_fire_at, schedule_faults = _first_fire_time(new, now)
    faults = [*schedule_faults, *_payload_faults(connection, new)]
    if faults:
        raise InvalidArgument.of(faults)
    task = Task(
        id=new_id(),
        title=new.title,
        description=new.description,
        schedule_kind=new.schedule_kind,
        schedule_expr=new.schedule_expr,
        timezone=new.timezone,
        payload=new.payload,
        priority=new.priority,
        created_by=new.created_by or caller.agent_id,
        status=TaskStatus.ACTIVE,
        next_fire_at=next_fire_at,
        created_at=now,
        updated_at=now,
    )
    task_store.add_task(connection, task)
    return task


def get_task(connection: Connection, task_id: str) -> Task:
    """One task."""
    task = task_store.get_task(connection, task_id)
    if task is None:
        raise TaskNotFound(task_id)
    return task


def run_task_now(connection: Connection, task_id: str, traceparent: str, clock: Clock) -> NewRun:
    """Queues a run of an active task, due at once, in its caller's trace."""
    task = get_task(connection, task_id)
    if task.status is not TaskStatus.ACTIVE:
        raise TaskNotActive(task_id, task.status)
    run = new_run(task, due_at=clock.now(), traceparent=traceparent)
    queue_store.add_runs(connection, [run], clock.now())
    return run


def new_run(task: Task, *, due_at: datetime, traceparent: str) -> NewRun:
    """A run of the task as it is now: later changes of the task do not touch it."""
    return NewRun(
        id=new_id(),
        task_id=task.id,
        task=task.title[:_RUN_NAME_LENGTH],
        priority=task.priority,
        due_at=due_at,
        payload=task.payload,
        traceparent=traceparent,
        created_by=task.created_by,
    )


def _first_fire_time(new: NewTask, now: datetime) -> tuple[datetime | None, list[Violation]]:
    try:
        first = parse_schedule(new.schedule_kind, new.schedule_expr, new.timezone).first(now)
    except ScheduleFault as fault:
        return None, list(fault.violations)
    if first is None and new.schedule_kind is not ScheduleKind.MANUAL:
        return None, [Violation("schedule_expr", f"{new.schedule_expr!r} never comes true")]
    return first, []


def _payload_faults(connection: Connection, new: NewTask) -> list[Violation]:
    size = len(orjson.dumps(new.payload))
    if size > MAX_PAYLOAD_BYTES:
        return [Violation("payload", f"is {size} bytes as JSON, at most {MAX_PAYLOAD_BYTES} are allowed")]
    problems = definition.check(new.payload)
    faults = [Violation(problem.field, problem.description) for problem in problems]
    return faults + tool_faults(connection, _tools_used(new.payload, {problem.field for problem in problems}))


def _tools_used(payload: dict[str, Any], faulty: Container[str]) -> dict[int, str]:
    """The tools of those steps that name one, by position, so that a fault elsewhere does not hide theirs."""
    if "payload" in faulty or "payload.pipeline" in faulty:
        return {}
    paths = ((position, f"payload.pipeline[{position}]", step) for position, step in enumerate(payload["pipeline"]))
    return {
        position: step["uses"] for position, path, step in paths if path not in faulty and f"{path}.uses" not in faulty
    }
