"""The built-in tools `workflows.start` and `workflows.advance`: workflows in the name of the task's owner."""

from typing import Any

from baton.workflows.v1 import workflow_service_pb2, workflow_service_pb2_grpc

from services.chassis import structs
from services.worker.tools.acting import Acting, as_step_failures
from services.worker.tools.use import Use


class WorkflowsStart:
    """Starts one workflow, however often the step is tried."""

    def __init__(self, stub: workflow_service_pb2_grpc.WorkflowServiceStub, acting: Acting) -> None:
        self._stub = stub
        self._acting = acting

    async def __call__(self, arguments: dict[str, Any], use: Use) -> Any:
        """The workflow, as `services.pipeline.builtin` says. Raises StepFailed."""
        request = workflow_service_pb2.StartWorkflowRequest(
            project_id=arguments["project_id"],
            build_id=arguments["build_id"],
            template=arguments.get("template", ""),
            user_id=arguments.get("user_id", ""),
            requirements=structs.to_struct(arguments.get("requirements", {})),
            metadata=structs.to_struct(arguments.get("metadata", {})),
            request_id=use.key,
        )
        with as_step_failures():
            credentials = await self._acting.credentials("workflows.start", use)
            answer = await self._stub.StartWorkflow(request, metadata=credentials, timeout=use.timeout)
        return {
            "workflow_id": answer.workflow_id,
            "initial_state": answer.initial_state,
            "current_role": answer.current_role,
        }


class WorkflowsAdvance:
    """Goes on once, however often the step is tried."""

    def __init__(self, stub: workflow_service_pb2_grpc.WorkflowServiceStub, acting: Acting) -> None:
        self._stub = stub
        self._acting = acting

    async def __call__(self, arguments: dict[str, Any], use: Use) -> Any:
        """What has become of the workflow, as `services.pipeline.builtin` says. Raises StepFailed."""
        request = workflow_service_pb2.AdvanceWorkflowRequest(
            workflow_id=arguments["workflow_id"],
            role=arguments["role"],
            completed_state=arguments["completed_state"],
            phase_result=structs.to_struct(arguments.get("phase_result", {})),
            next_state=arguments.get("next_state", ""),
            request_id=use.key,
        )
        with as_step_failures():
            credentials = await self._acting.credentials("workflows.advance", use)
            answer = await self._stub.AdvanceWorkflow(request, metadata=credentials, timeout=use.timeout)
        return {
            "previous_state": answer.previous_state,
            "new_state": answer.new_state,
            "next_role": answer.next_role,
            "is_complete": answer.is_complete,
            "handoff_data": structs.from_struct(answer.handoff_data),
        }
