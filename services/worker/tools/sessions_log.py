"""The built-in tool `sessions.log`: an entry in the log of the task's owner."""

from typing import Any

from baton.sessions.v1 import log_pb2, log_service_pb2, log_service_pb2_grpc

from services.chassis import structs
from services.worker.tools.acting import Acting, as_step_failures
from services.worker.tools.use import Use

_CATEGORIES = {
    "hook": log_pb2.EVENT_CATEGORY_HOOK,
    "response": log_pb2.EVENT_CATEGORY_RESPONSE,
}


class SessionsLog:
    """Adds one entry, however often the step is tried."""

    def __init__(self, stub: log_service_pb2_grpc.LogServiceStub, acting: Acting) -> None:
        self._stub = stub
        self._acting = acting

    async def __call__(self, arguments: dict[str, Any], use: Use) -> Any:
        """The entry's number, as `services.pipeline.builtin` says. Raises StepFailed."""
        entry = log_service_pb2.NewAgentLog(
            content=arguments["content"],
            event_category=_CATEGORIES[arguments.get("event_category", "response")],
            event_type=arguments.get("event_type", "text"),
            task_slug=arguments.get("task_slug", ""),
            session_id=arguments.get("session_id", ""),
            summary=arguments.get("summary", ""),
        )
        if payload := arguments.get("payload"):
            entry.payload.CopyFrom(structs.to_struct(payload))
        request = log_service_pb2.AppendAgentLogsRequest(agent_id=use.user.owner, entries=[entry], request_id=use.key)
        with as_step_failures("entries[0]."):
            credentials = await self._acting.credentials("sessions.log", use)
            answer = await self._stub.AppendAgentLogs(request, metadata=credentials, timeout=use.timeout)
        return {"entry_index": answer.entry_indexes[0]}
