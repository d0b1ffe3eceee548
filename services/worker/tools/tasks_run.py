"""The built-in tool `tasks.run`: a run of another task, in the name of this one's owner."""

from typing import Any

from baton.tasks.v1 import task_service_pb2, task_service_pb2_grpc

from services.chassis import structs
from services.worker.tools.acting import Acting, as_step_failures
from services.worker.tools.use import Use


class TasksRun:
    """Queues one run, however often the step is tried, and does not wait for its end."""

    def __init__(self, stub: task_service_pb2_grpc.TaskServiceStub, acting: Acting) -> None:
        self._stub = stub
        self._acting = acting

    async def __call__(self, arguments: dict[str, Any], use: Use) -> Any:
        """The run, as `services.pipeline.builtin` says. Raises StepFailed."""
        request = task_service_pb2.RunTaskNowRequest(
            task_id=arguments["task_id"], params=structs.to_struct(arguments.get("params", {})), request_id=use.key
        )
        with as_step_failures():
            credentials = await self._acting.credentials("tasks.run", use)
            answer = await self._stub.RunTaskNow(request, metadata=credentials, timeout=use.timeout)
        return {"run_id": answer.details.run_id, "duplicate": answer.details.duplicate}
