"""Work that is routed to a role."""

from dataclasses import replace
from typing import Any

from baton.tasks.v1 import routing_service_pb2 as pb
from baton.tasks.v1 import task_pb2
from baton.tasks.v1.task_service_pb2 import CreateTaskRequest
from google.protobuf.struct_pb2 import Struct

from services.chassis.structs import from_struct
from services.tasks.convert.task import new_task
from services.tasks.models.task import NewTask, Task

_TITLE_LENGTH = 200


def routed_task(request: pb.RouteTaskRequest, default_timezone: str) -> NewTask:
    """The task that is to be created: one with nothing but parameters, for the agents of a role."""
    task = request.task
    return _for_role(
        request.target, task.task_type, task.description, task.data, default_timezone, from_struct(request.context)
    )


def notification(request: pb.NotifyRequest, default_timezone: str) -> NewTask:
    """The task of taking note of something."""
    return _for_role(request.target, "notification", request.message, request.data, default_timezone, {})


def _for_role(
    role: str, task_type: str, description: str, data: Struct, default_timezone: str, context: dict[str, Any]
) -> NewTask:
    created = CreateTaskRequest(
        title=description[:_TITLE_LENGTH],
        description=description,
        schedule_kind=task_pb2.SCHEDULE_KIND_MANUAL,
        role=role,
    )
    params = {"task_type": task_type, "description": description, "data": from_struct(data), "context": context}
    return replace(new_task(created, default_timezone), payload={"pipeline": [], "params": params})


def routed_response(task: Task, trace_id: str) -> pb.RouteTaskResponse:
    """The answer to route."""
    return pb.RouteTaskResponse(task_id=task.id, status=task_pb2.TASK_STATUS_PENDING, trace_id=trace_id)


def notify_response(task: Task, trace_id: str) -> pb.NotifyResponse:
    """The answer to notify."""
    return pb.NotifyResponse(task_id=task.id, status=task_pb2.TASK_STATUS_PENDING, trace_id=trace_id)
