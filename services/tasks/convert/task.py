"""Tasks."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from baton.tasks.v1 import run_pb2, task_pb2, task_service_pb2

from services.chassis.backoff import BackoffStrategy
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import stored_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import to_timestamp
from services.tasks.convert.condition import condition, condition_message
from services.tasks.convert.enums import from_enum, to_enum
from services.tasks.models.run import Run
from services.tasks.models.standing import RUN_STATUSES, Standing
from services.tasks.models.task import Misfire, NewTask, Overlap, ScheduleKind, Task, TaskStatus
from services.tasks.operations.task_status import Moved, Snoozed
from services.tasks.store.task import TaskFilters

_DEFAULT_PRIORITY = 5
_DEFAULT_MAX_RETRIES = 3
_E = TypeVar("_E", bound=StrEnum)


_SAME_IN_BOTH = (
    "title",
    "description",
    "schedule_expr",
    "timezone",
    "priority",
    "max_retries",
    "concurrency_key",
    "role",
    "event_filter",
)
_ENUMS: Mapping[str, tuple[type[StrEnum], Any]] = {
    "schedule_kind": (ScheduleKind, task_pb2.ScheduleKind),
    "backoff_strategy": (BackoffStrategy, task_pb2.BackoffStrategy),
    "misfire": (Misfire, task_pb2.Misfire),
    "overlap": (Overlap, task_pb2.Overlap),
    "status": (TaskStatus, task_pb2.TaskStatus),
}


def new_task(
    request: task_service_pb2.CreateTaskRequest | task_service_pb2.PreviewTaskRequest, default_timezone: str
) -> NewTask:
    """What the caller wants to create."""
    return NewTask(
        title=request.title,
        description=request.description,
        schedule_kind=from_enum(ScheduleKind, task_pb2.ScheduleKind, request.schedule_kind),
        schedule_expr=request.schedule_expr,
        timezone=request.timezone or default_timezone,
        payload=from_struct(request.payload),
        priority=request.priority if request.HasField("priority") else _DEFAULT_PRIORITY,
        dedupe_key=request.dedupe_key,
        dedupe_window_seconds=request.dedupe_window_seconds,
        max_retries=request.max_retries if request.HasField("max_retries") else _DEFAULT_MAX_RETRIES,
        backoff_strategy=_or_default(
            request.backoff_strategy, task_pb2.BackoffStrategy, BackoffStrategy.EXPONENTIAL_JITTER
        ),
        concurrency_key=request.concurrency_key,
        misfire=_or_default(request.misfire, task_pb2.Misfire, Misfire.RUN_ONCE),
        overlap=_or_default(request.overlap, task_pb2.Overlap, Overlap.ALLOW),
        role=request.role,
        created_by=stored_id(request.created_by),
        event_filter=request.event_filter,
        condition=condition(request.condition) if request.HasField("condition") else None,
    )


def task_changes(request: task_service_pb2.UpdateTaskRequest) -> dict[str, Any]:
    """What the caller gives of a task, by the names of the model's fields."""
    given = {descriptor.name for descriptor, _ in request.ListFields()}
    changes = {name: getattr(request, name) for name in _SAME_IN_BOTH if name in given}
    for name, (kind, wire) in _ENUMS.items():
        if name in given:
            changes[name] = from_enum(kind, wire, getattr(request, name))
    if "payload" in given:
        changes["payload"] = from_struct(request.payload)
    if "condition" in given:
        changes["condition"] = condition(request.condition)
    return changes


def task_filters(request: task_service_pb2.ListTasksRequest) -> TaskFilters:
    """Which tasks the caller wants to see; with a `target`, `status` says how the work for it stands."""
    standings = _statuses(Standing, request, "with a target") if request.target else []
    return TaskFilters(
        statuses=[] if request.target else _statuses(TaskStatus, request, "without a target"),
        kinds=[from_enum(ScheduleKind, task_pb2.ScheduleKind, kind) for kind in request.schedule_kind],
        created_by=list(request.created_by),
        text=request.text,
        roles=list(request.role),
        target=request.target,
        standing=[status for standing in standings for status in RUN_STATUSES[standing]],
    )


def _statuses(kind: type[_E], request: task_service_pb2.ListTasksRequest, where: str) -> list[_E]:
    """The model's members. Raises InvalidArgument for a word that is not one of this kind."""
    names = [task_pb2.TaskStatus.Name(status).removeprefix("TASK_STATUS_").lower() for status in request.status]
    known = [member.value for member in kind]
    faults = [
        Violation(f"status[{index}]", f"must be one of {', '.join(known)}, {where}")
        for index, name in enumerate(names)
        if name not in known
    ]
    if faults:
        raise InvalidArgument.of(faults)
    return [kind(name) for name in names]


def task_message(task: Task, newest_run: Run | None = None) -> task_pb2.Task:
    """A task as it is answered."""
    return task_pb2.Task(
        id=task.id,
        title=task.title,
        description=task.description,
        schedule_kind=to_enum(task.schedule_kind, task_pb2.ScheduleKind),
        schedule_expr=task.schedule_expr,
        timezone=task.timezone,
        payload=to_struct(task.payload),
        priority=task.priority,
        dedupe_key=task.dedupe_key,
        dedupe_window_seconds=task.dedupe_window_seconds,
        max_retries=task.max_retries,
        backoff_strategy=to_enum(task.backoff_strategy, task_pb2.BackoffStrategy),
        concurrency_key=task.concurrency_key,
        misfire=to_enum(task.misfire, task_pb2.Misfire),
        overlap=to_enum(task.overlap, task_pb2.Overlap),
        role=task.role,
        target=task.role,
        last_run=_last_run_message(newest_run),
        paused_at=to_timestamp(task.paused_at),
        created_by=task.created_by,
        status=to_enum(task.status, task_pb2.TaskStatus),
        next_fire_at=to_timestamp(task.next_fire_at),
        next_scheduled_for=to_timestamp(task.next_scheduled_for),
        created_at=to_timestamp(task.created_at),
        updated_at=to_timestamp(task.updated_at),
        event_filter=task.event_filter,
        condition=condition_message(task.condition),
    )


def _last_run_message(run: Run | None) -> task_pb2.LastRun | None:
    if run is None:
        return None
    return task_pb2.LastRun(id=run.id, status=to_enum(run.status, run_pb2.RunStatus))


def snooze_response(
    snoozed: Snoozed, request: task_service_pb2.SnoozeTaskRequest
) -> task_service_pb2.SnoozeTaskResponse:
    """The answer to snooze."""
    why = f": {request.reason}" if request.reason else ""
    return task_service_pb2.SnoozeTaskResponse(
        success=True,
        message=f"task {snoozed.task.id} is snoozed by {request.delay_seconds} s{why}",
        details=task_service_pb2.SnoozeTaskDetails(
            task_id=snoozed.task.id,
            delay_seconds=request.delay_seconds,
            affected_work_items=snoozed.moved,
            next_fire_at=to_timestamp(snoozed.task.next_fire_at),
        ),
    )


def moved_message(moved: Moved) -> str:
    """What happened, for people."""
    task = moved.task
    return (
        f"task {task.id} is {task.status}"
        if moved.old is not task.status
        else f"task {task.id} was {moved.old} already"
    )


def status_change_message(moved: Moved) -> task_service_pb2.TaskStatusChange:
    """From which status to which."""
    return task_service_pb2.TaskStatusChange(
        task_id=moved.task.id,
        old_status=to_enum(moved.old, task_pb2.TaskStatus),
        new_status=to_enum(moved.task.status, task_pb2.TaskStatus),
        affected_work_items=moved.runs,
    )


def _or_default(number: int, wire: Any, default: _E) -> _E:
    """The model's member, or `default` when none was given."""
    return from_enum(type(default), wire, number) if number else default
