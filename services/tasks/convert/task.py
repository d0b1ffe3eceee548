"""Tasks."""

from baton.tasks.v1 import task_pb2, task_service_pb2

from services.chassis.ids import stored_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import to_timestamp
from services.tasks.convert.enums import from_enum, to_enum
from services.tasks.models.run import NewRun
from services.tasks.models.task import NewTask, ScheduleKind, Task, TaskStatus

_DEFAULT_PRIORITY = 5


def new_task(request: task_service_pb2.CreateTaskRequest, default_timezone: str) -> NewTask:
    """What the caller wants to create."""
    return NewTask(
        title=request.title,
        description=request.description,
        schedule_kind=schedule_kind(request.schedule_kind),
        schedule_expr=request.schedule_expr,
        timezone=request.timezone or default_timezone,
        payload=from_struct(request.payload),
        priority=request.priority if request.HasField("priority") else _DEFAULT_PRIORITY,
        created_by=stored_id(request.created_by),
    )


def schedule_kind(value: task_pb2.ScheduleKind.ValueType) -> ScheduleKind:
    return from_enum(ScheduleKind, task_pb2.ScheduleKind, value)


def task_status(value: task_pb2.TaskStatus.ValueType) -> TaskStatus:
    return from_enum(TaskStatus, task_pb2.TaskStatus, value)


def task_message(task: Task) -> task_pb2.Task:
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
        created_by=task.created_by,
        status=to_enum(task.status, task_pb2.TaskStatus),
        next_fire_at=to_timestamp(task.next_fire_at),
        created_at=to_timestamp(task.created_at),
        updated_at=to_timestamp(task.updated_at),
    )


def run_now_response(run: NewRun) -> task_service_pb2.RunTaskNowResponse:
    """The answer to run_now, with the run's id under the earlier clients' name too."""
    return task_service_pb2.RunTaskNowResponse(
        success=True,
        message=f"run {run.id} is queued",
        details=task_service_pb2.RunTaskNowDetails(task_id=run.task_id, run_id=run.id, due_work_id=run.id),
    )
