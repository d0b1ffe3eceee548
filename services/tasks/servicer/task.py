"""TaskService."""

from typing import Any

from baton.tasks.v1 import task_service_pb2 as pb
from baton.tasks.v1 import task_service_pb2_grpc as rpc
from grpc.aio import ServicerContext

from services.chassis import telemetry
from services.chassis.call import caller
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.paging import Cursors, page_limit
from services.tasks.convert import task as convert
from services.tasks.operations import task as operations
from services.tasks.store import task as store
from services.tasks.wakeup import Wakeup

_Context = ServicerContext[Any, Any]


class TaskServicer(rpc.TaskServiceServicer):
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

    async def CreateTask(self, request: pb.CreateTaskRequest, context: _Context) -> pb.CreateTaskResponse:
        new, creator = convert.new_task(request, self._default_timezone), caller()
        return await self._idempotency.once(
            request,
            pb.CreateTaskResponse,
            lambda connection, clock: pb.CreateTaskResponse(
                task=convert.task_message(operations.create_task(connection, new, creator, clock))
            ),
        )

    async def GetTask(self, request: pb.GetTaskRequest, context: _Context) -> pb.GetTaskResponse:
        task_id = request.task_id
        task = await self._database.read(lambda connection, clock: operations.get_task(connection, task_id))
        return pb.GetTaskResponse(task=convert.task_message(task))

    async def ListTasks(self, request: pb.ListTasksRequest, context: _Context) -> pb.ListTasksResponse:
        position, limit = self._cursors.decode(request), page_limit(request)
        statuses = [convert.task_status(status) for status in request.status]
        kinds = [convert.schedule_kind(kind) for kind in request.schedule_kind]
        rows = await self._database.read(
            lambda connection, clock: store.list_tasks(
                connection,
                limit=limit + 1,
                before_id=str(position[0]) if position else None,
                statuses=statuses,
                kinds=kinds,
            )
        )
        items, cursor = self._cursors.page(request, rows, convert.task_message, lambda row: row.id)
        return pb.ListTasksResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def RunTaskNow(self, request: pb.RunTaskNowRequest, context: _Context) -> pb.RunTaskNowResponse:
        task_id, traceparent = request.task_id, telemetry.traceparent()
        response = await self._idempotency.once(
            request,
            pb.RunTaskNowResponse,
            lambda connection, clock: convert.run_now_response(
                operations.run_task_now(connection, task_id, traceparent, clock)
            ),
        )
        self._work_wakeup.notify()
        return response
