"""The explanations of TaskService and RunService."""

from typing import Any

from baton.tasks.v1 import run_pb2, run_service_pb2, task_service_pb2
from grpc.aio import ServicerContext

from services.chassis.database import Database
from services.chassis.timestamps import to_timestamp
from services.tasks.convert.condition import evaluation_message
from services.tasks.convert.enums import to_enum
from services.tasks.convert.event import delivery_message
from services.tasks.convert.explanation import blocker_message
from services.tasks.convert.occurrence import occurrence_message
from services.tasks.operations import explain as operations

_Context = ServicerContext[Any, Any]


class TaskExplanations:
    """Why a task has not fired."""

    _database: Database

    async def ExplainTask(
        self, request: task_service_pb2.ExplainTaskRequest, context: _Context
    ) -> task_service_pb2.ExplainTaskResponse:
        task_id = request.task_id
        explained = await self._database.read(
            lambda connection, clock: operations.explain_task(connection, task_id, clock)
        )
        return task_service_pb2.ExplainTaskResponse(
            summary=explained.summary,
            blockers=[blocker_message(blocker) for blocker in explained.blockers],
            next_fire_at=to_timestamp(explained.next_fire_at),
            last_occurrence=occurrence_message(explained.last) if explained.last else None,
            live_run_id=explained.live_run_id,
            last_delivery=delivery_message(explained.delivery) if explained.delivery else None,
            last_evaluation=evaluation_message(explained.evaluation) if explained.evaluation else None,
            next_probe_at=to_timestamp(explained.next_probe_at),
        )


class RunExplanations:
    """Why a run is not under way."""

    _database: Database

    async def ExplainRun(
        self, request: run_service_pb2.ExplainRunRequest, context: _Context
    ) -> run_service_pb2.ExplainRunResponse:
        run_id = request.run_id
        status, explained = await self._database.read(
            lambda connection, clock: operations.explain_run(connection, run_id, clock)
        )
        return run_service_pb2.ExplainRunResponse(
            status=to_enum(status, run_pb2.RunStatus),
            summary=explained.summary,
            blockers=[blocker_message(blocker) for blocker in explained.blockers],
        )
