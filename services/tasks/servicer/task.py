"""TaskService."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from baton.tasks.v1 import task_service_pb2 as pb
from baton.tasks.v1 import task_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services import metric_names
from services.chassis import call, telemetry
from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import InvalidArgument, ServiceError, Violation
from services.chassis.idempotency import Idempotency
from services.chassis.paging import Cursors, page_limit
from services.chassis.structs import from_struct
from services.chassis.wakeup import Wakeup
from services.tasks.convert import occurrence as occurrence_convert
from services.tasks.convert import task as convert
from services.tasks.convert.preview import preview_response
from services.tasks.convert.start import run_now, run_now_response
from services.tasks.models.task import Task, TaskStatus
from services.tasks.operations import occurrence, preview, task_status, task_update
from services.tasks.operations import task as operations
from services.tasks.operations.start import Start, start_each
from services.tasks.servicer.explain import TaskExplanations
from services.tasks.servicer.probe import TaskEvaluations
from services.tasks.spans import new_trace
from services.tasks.store import task as store
from services.tasks.store.standing import newest_run as newest_run_of

_Context = ServicerContext[Any, Any]
_Changed = TypeVar("_Changed", pb.PauseTaskResponse, pb.ResumeTaskResponse, pb.CancelTaskResponse)
_Changing = pb.PauseTaskRequest | pb.ResumeTaskRequest | pb.CancelTaskRequest
_COUNTED = 10_001
_DEFAULT_NEXT = 5


class TaskServicer(TaskEvaluations, TaskExplanations, rpc.TaskServiceServicer):
    """Tasks and their schedules."""

    def __init__(
        self,
        database: Database,
        idempotency: Idempotency,
        cursors: Cursors,
        work_wakeup: Wakeup,
        default_timezone: str,
    ) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors
        self._work_wakeup = work_wakeup
        self._default_timezone = default_timezone
        self._created = telemetry.meter().create_counter(
            metric_names.TASKS_CREATED, description="tasks that callers have created"
        )
        self._starts = idempotency.grouped(pb.RunTaskNowResponse, _start_each)

    async def CreateTask(self, request: pb.CreateTaskRequest, context: _Context) -> pb.CreateTaskResponse:
        new, creator = convert.new_task(request, self._default_timezone), caller()
        created = await self._idempotency.once(
            request,
            pb.CreateTaskResponse,
            lambda connection, clock: pb.CreateTaskResponse(
                task=convert.task_message(operations.create_task(connection, new, creator, clock))
            ),
        )
        if not call.is_replay():
            self._created.add(1)
        return created

    async def PreviewTask(self, request: pb.PreviewTaskRequest, context: _Context) -> pb.PreviewTaskResponse:
        new, sample, asker = convert.new_task(request, self._default_timezone), from_struct(request.sample), caller()
        # Rendering may take a while: it stays on the database's thread, where nobody waits for it.
        return await self._database.read(
            lambda connection, clock: preview_response(preview.preview_task(connection, new, sample, asker, clock))
        )

    async def GetTask(self, request: pb.GetTaskRequest, context: _Context) -> pb.GetTaskResponse:
        task_id = request.task_id
        task, newest_run = await self._database.read(
            lambda connection, clock: (operations.get_task(connection, task_id), newest_run_of(connection, task_id))
        )
        return pb.GetTaskResponse(task=convert.task_message(task, newest_run))

    async def ListTasks(self, request: pb.ListTasksRequest, context: _Context) -> pb.ListTasksResponse:
        listed, limit, offset = _without_offset(request), page_limit(request), request.offset
        position, filters = self._cursors.decode(listed), convert.task_filters(request)
        before_id = str(position[0]) if position else None

        def found(connection: Connection, clock: Clock) -> tuple[list[Task], int | None]:
            tasks = store.list_tasks(connection, filters, limit=limit + 1, before_id=before_id, offset=offset)
            is_counted = not before_id and not filters.standing
            return tasks, store.count_tasks(connection, filters, at_most=_COUNTED) if is_counted else None

        tasks, total = await self._database.read(found)
        items, cursor = self._cursors.page(listed, tasks, convert.task_message, lambda task: task.id)
        return pb.ListTasksResponse(
            items=items, next_cursor=cursor, has_more=cursor is not None, total=total, limit=limit, offset=offset
        )

    async def UpdateTask(self, request: pb.UpdateTaskRequest, context: _Context) -> pb.UpdateTaskResponse:
        task_id, changes, changer, key = request.task_id, convert.task_changes(request), caller(), request.request_id
        response = await self._idempotency.once(
            request,
            pb.UpdateTaskResponse,
            lambda connection, clock: pb.UpdateTaskResponse(
                task=convert.task_message(
                    task_update.update_task(connection, task_id, changes, changer, new_trace, clock, request_id=key)
                )
            ),
        )
        if request.HasField("status"):
            self._work_wakeup.notify()
        return response

    async def RunTaskNow(self, request: pb.RunTaskNowRequest, context: _Context) -> pb.RunTaskNowResponse:
        wanted = _Wanted(run_now(request, caller(), telemetry.traceparent()))
        response = await self._starts.once(request, wanted)
        if wanted.roles:
            self._work_wakeup.notify(*wanted.roles)
        return response

    async def SnoozeTask(self, request: pb.SnoozeTaskRequest, context: _Context) -> pb.SnoozeTaskResponse:
        task_id, delay, changer = request.task_id, timedelta(seconds=request.delay_seconds), caller()
        told = {"reason": request.reason, "request_id": request.request_id}
        response = await self._idempotency.once(
            request,
            pb.SnoozeTaskResponse,
            lambda connection, clock: convert.snooze_response(
                task_status.snooze_task(connection, task_id, delay, changer, clock, **told), request
            ),
        )
        # Somebody else may come first in the lines of what was moved.
        self._work_wakeup.notify()
        return response

    async def PauseTask(self, request: pb.PauseTaskRequest, context: _Context) -> pb.PauseTaskResponse:
        return await self._change_status(request, pb.PauseTaskResponse, TaskStatus.PAUSED)

    async def ResumeTask(self, request: pb.ResumeTaskRequest, context: _Context) -> pb.ResumeTaskResponse:
        return await self._change_status(request, pb.ResumeTaskResponse, TaskStatus.ACTIVE)

    async def CancelTask(self, request: pb.CancelTaskRequest, context: _Context) -> pb.CancelTaskResponse:
        return await self._change_status(request, pb.CancelTaskResponse, TaskStatus.CANCELED)

    async def ListOccurrences(
        self, request: pb.ListOccurrencesRequest, context: _Context
    ) -> pb.ListOccurrencesResponse:
        position, limit, task_id = self._cursors.decode(request), page_limit(request), request.task_id
        before = occurrence_convert.from_position(int(position[0])) if position else None
        outcomes = [occurrence_convert.outcome(outcome) for outcome in request.outcome]
        upcoming = 0 if before else request.next if request.HasField("next") else _DEFAULT_NEXT
        times = await self._database.read(
            lambda connection, clock: occurrence.list_occurrences(
                connection, task_id, limit=limit + 1, before=before, outcomes=outcomes, upcoming=upcoming
            )
        )
        items, cursor = self._cursors.page(
            request, times.past, occurrence_convert.occurrence_message, occurrence_convert.to_position
        )
        return pb.ListOccurrencesResponse(
            items=items,
            next_cursor=cursor,
            has_more=cursor is not None,
            next=[occurrence_convert.fire_time_message(time) for time in times.next],
        )

    async def _change_status(self, request: _Changing, response_type: type[_Changed], status: TaskStatus) -> _Changed:
        task_id, changer, key = request.task_id, caller(), request.request_id

        def change(connection: Connection, clock: Clock) -> _Changed:
            moved = task_status.change_status(connection, task_id, status, changer, new_trace, clock, request_id=key)
            message, details = convert.moved_message(moved), convert.status_change_message(moved)
            return response_type(success=True, message=message, details=details)

        response = await self._idempotency.once(request, response_type, change)
        # What waited, or stood behind what is canceled, may have become free; it is of any role that the task had.
        self._work_wakeup.notify()
        return response


@dataclass(frozen=True)
class _Wanted:
    """A run to be started, and then whose workers have something to do."""

    start: Start
    roles: set[str] = field(default_factory=set)


def _start_each(
    connection: Connection, clock: Clock, wanted: Sequence[_Wanted]
) -> list[pb.RunTaskNowResponse | ServiceError]:
    responses: list[pb.RunTaskNowResponse | ServiceError] = []
    for one, started in zip(wanted, start_each(connection, [one.start for one in wanted], clock), strict=True):
        if isinstance(started, ServiceError):
            responses.append(started)
            continue
        if not started.duplicate:
            one.roles.add(started.role)
        responses.append(run_now_response(started))
    return responses


def _without_offset(request: pb.ListTasksRequest) -> pb.ListTasksRequest:
    """The request as cursors are bound to it: who has come by offset may go on by cursor, and then with none."""
    if request.cursor and request.offset:
        raise InvalidArgument.of([Violation("offset", "does not go together with a cursor: leave one of them out")])
    bound = pb.ListTasksRequest()
    bound.CopyFrom(request)
    bound.ClearField("offset")
    return bound
