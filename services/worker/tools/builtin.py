"""What the built-in tools do; what they are called, take and answer is in `services.pipeline.builtin`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from baton.api.v1 import auth_service_pb2_grpc
from baton.sessions.v1 import log_service_pb2_grpc
from baton.tasks.v1 import event_service_pb2_grpc, task_service_pb2_grpc
from baton.workflows.v1 import workflow_service_pb2_grpc
from grpc.aio import Channel

from services.chassis.egress.client import Egress
from services.pipeline.builtin import BUILTIN_TOOLS
from services.worker.tools.acting import Acting
from services.worker.tools.events_publish import EventsPublish
from services.worker.tools.http_request import HttpRequest
from services.worker.tools.schemas import InputSchema, OutputSchema
from services.worker.tools.sessions_log import SessionsLog
from services.worker.tools.tasks_run import TasksRun
from services.worker.tools.use import Use
from services.worker.tools.workflows import WorkflowsAdvance, WorkflowsStart

Tool = Callable[[dict[str, Any], Use], Awaitable[Any]]
"""Takes its input, and what else there is to know of the call. Raises StepFailed."""


async def echo(arguments: dict[str, Any], use: Use) -> Any:
    """Answers its input, whatever it is, at once."""
    return arguments


def tools(egress: Egress, tasks: Channel, sessions: Channel, workflows: Channel) -> Mapping[str, Tool]:
    """All built-in tools by their address: they make requests through `egress`, and call these services."""
    acting = Acting(auth_service_pb2_grpc.AuthServiceStub(sessions))
    workflow_stub = workflow_service_pb2_grpc.WorkflowServiceStub(workflows)
    return {
        "echo.test": echo,
        "events.publish": EventsPublish(event_service_pb2_grpc.EventServiceStub(tasks), acting),
        "http.request": HttpRequest(egress),
        "sessions.log": SessionsLog(log_service_pb2_grpc.LogServiceStub(sessions), acting),
        "tasks.run": TasksRun(task_service_pb2_grpc.TaskServiceStub(tasks), acting),
        "workflows.advance": WorkflowsAdvance(workflow_stub, acting),
        "workflows.start": WorkflowsStart(workflow_stub, acting),
    }


class BuiltinTools:
    """Calls built-in tools, and holds them and their callers to the schemas."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self._inputs = {address: InputSchema(address, BUILTIN_TOOLS[address].input_schema) for address in tools}
        self._outputs = {address: OutputSchema(address, BUILTIN_TOOLS[address].output_schema) for address in tools}

    def __contains__(self, address: str) -> bool:
        return address in self._tools

    async def call(self, address: str, arguments: dict[str, Any], use: Use) -> Any:
        """Raises StepFailed: InputNotValid before the tool is called when its input does not fit."""
        self._inputs[address].check(arguments, use.clean)
        output = await self._tools[address](arguments, use)
        self._outputs[address].check(output)
        return output
