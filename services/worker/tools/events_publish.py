"""The built-in tool `events.publish`: an event in the name of the task's owner."""

from typing import Any

from baton.tasks.v1 import event_service_pb2, event_service_pb2_grpc

from services.chassis import structs
from services.worker.tools.acting import Acting, as_step_failures
from services.worker.tools.use import Use


class EventsPublish:
    """Publishes once, however often the step is tried, as one event deeper than what made the run."""

    def __init__(self, stub: event_service_pb2_grpc.EventServiceStub, acting: Acting) -> None:
        self._stub = stub
        self._acting = acting

    async def __call__(self, arguments: dict[str, Any], use: Use) -> Any:
        """The event, as `services.pipeline.builtin` says. Raises StepFailed."""
        request = event_service_pb2.PublishEventRequest(
            topic=arguments["topic"],
            payload=structs.to_struct(arguments.get("payload", {})),
            request_id=use.key,
        )
        with as_step_failures():
            credentials = await self._acting.credentials("events.publish", use)
            answer = await self._stub.PublishEvent(request, metadata=credentials, timeout=use.timeout)
        return {"event_id": answer.details.event_id, "triggered_tasks": list(answer.details.triggered_tasks)}
