"""Work that is routed to a role."""

from dataclasses import replace

from baton.tasks.v1 import routing_service_pb2 as pb
from baton.tasks.v1 import task_pb2
from baton.tasks.v1.task_service_pb2 import CreateTaskRequest

from services.chassis.structs import from_struct
from services.tasks.convert.task import new_task
from services.tasks.models.task import NewTask, Task

_TITLE_LENGTH = 200


def routed_task(request: pb.RouteTaskRequest, default_timezone: str) -> NewTask:
    """The task that is to be created: one with nothing but parameters, for the agents of a role."""
    task = request.task
    created = CreateTaskRequest(
        title=task.description[:_TITLE_LENGTH],
        description=task.description,
        schedule_kind=task_pb2.SCHEDULE_KIND_MANUAL,
        role=request.target,
    )
    params = {
        "task_type": task.task_type,
        "description": task.description,
        "data": from_struct(task.data),
        "context": from_struct(request.context),
    }
    return replace(new_task(created, default_timezone), payload={"pipeline": [], "params": params})


def routed_response(task: Task, trace_id: str) -> pb.RouteTaskResponse:
    """The answer to route."""
    return pb.RouteTaskResponse(task_id=task.id, status=task_pb2.TASK_STATUS_PENDING, trace_id=trace_id)
