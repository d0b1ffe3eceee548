"""What the owner of a task does with it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from baton.tasks.v1 import run_pb2, task_pb2
from baton.tasks.v1 import task_service_pb2 as pb
from baton.tasks.v1.run_service_pb2 import ListRunsRequest
from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis.structs import to_struct
from tests.integration.tasks.running import Tasks

CRON, ONCE, MANUAL = task_pb2.SCHEDULE_KIND_CRON, task_pb2.SCHEDULE_KIND_ONCE, task_pb2.SCHEDULE_KIND_MANUAL
ACTIVE, PAUSED, CANCELED, COMPLETED = (
    task_pb2.TASK_STATUS_ACTIVE,
    task_pb2.TASK_STATUS_PAUSED,
    task_pb2.TASK_STATUS_CANCELED,
    task_pb2.TASK_STATUS_COMPLETED,
)
RAN, MISSED, OUTCOME_PAUSED, OUTCOME_CANCELED = (
    task_pb2.OCCURRENCE_OUTCOME_RAN,
    task_pb2.OCCURRENCE_OUTCOME_MISSED,
    task_pb2.OCCURRENCE_OUTCOME_PAUSED,
    task_pb2.OCCURRENCE_OUTCOME_CANCELED,
)
TEN_MINUTES = timedelta(minutes=10)


def at(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(UTC)


def to_ten_minutes(tasks: Tasks) -> datetime:
    """Moves the clock on to the next minute that ends in zero."""
    tasks.clock.advance(seconds=600 - tasks.clock.now().timestamp() % 600)
    return tasks.clock.now()


async def every_ten_minutes(tasks: Tasks, **fields: Any) -> task_pb2.Task:
    return await tasks.create(schedule_kind=CRON, schedule_expr="*/10 * * * *", **fields)


async def once(tasks: Tasks, instant: datetime, **fields: Any) -> task_pb2.Task:
    return await tasks.create(schedule_kind=ONCE, schedule_expr=instant.isoformat(), **fields)


async def completed(tasks: Tasks) -> task_pb2.Task:
    """A task whose only time has come and gone too late to be made up for."""
    task = await once(tasks, tasks.clock.now() - timedelta(hours=2))
    await tasks.service.scheduler.step()
    return await read(tasks, task.id)


async def read(tasks: Tasks, task_id: str) -> task_pb2.Task:
    return (await tasks.tasks.GetTask(pb.GetTaskRequest(task_id=task_id))).task


async def update(tasks: Tasks, task_id: str, **fields: Any) -> task_pb2.Task:
    """Changes a task; `payload` is a dict."""
    if "payload" in fields:
        fields["payload"] = to_struct(fields["payload"])
    return (await tasks.tasks.UpdateTask(pb.UpdateTaskRequest(task_id=task_id, **fields))).task


async def pause(tasks: Tasks, task_id: str) -> pb.TaskStatusChange:
    return (await tasks.tasks.PauseTask(pb.PauseTaskRequest(task_id=task_id))).details


async def resume(tasks: Tasks, task_id: str) -> pb.TaskStatusChange:
    return (await tasks.tasks.ResumeTask(pb.ResumeTaskRequest(task_id=task_id))).details


async def cancel(tasks: Tasks, task_id: str) -> pb.TaskStatusChange:
    return (await tasks.tasks.CancelTask(pb.CancelTaskRequest(task_id=task_id))).details


async def snooze(tasks: Tasks, task_id: str, seconds: int) -> pb.SnoozeTaskDetails:
    request = pb.SnoozeTaskRequest(task_id=task_id, delay_seconds=seconds)
    return (await tasks.tasks.SnoozeTask(request)).details


async def occurrences(tasks: Tasks, task_id: str, **fields: Any) -> pb.ListOccurrencesResponse:
    return await tasks.tasks.ListOccurrences(pb.ListOccurrencesRequest(task_id=task_id, **fields))


async def outcomes(tasks: Tasks, task_id: str) -> list[tuple[datetime, Any]]:
    """The times of a task that were judged, with their outcomes, oldest first."""
    items = (await occurrences(tasks, task_id, limit=200)).items
    return [(at(item.scheduled_for), item.outcome) for item in reversed(items)]


async def runs_of(tasks: Tasks, task_id: str) -> list[run_pb2.Run]:
    """The runs of a task, oldest first."""
    return list((await tasks.runs.ListRuns(ListRunsRequest(task_id=[task_id], limit=200))).items)[::-1]
