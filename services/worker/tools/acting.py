"""Calls of Baton's own services in the name of the agent whose work they are part of."""

from collections.abc import Iterator
from contextlib import contextmanager

from baton.api.v1 import auth_service_pb2, auth_service_pb2_grpc
from grpc.aio import Metadata

from services.chassis.errors import (
    Aborted,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)
from services.pipeline.builtin import BUILTIN_TOOLS
from services.worker.failures import RequestRejected, StepFailed, ToolFailed, ToolTimedOut
from services.worker.tools.use import Use

_PASSING = (Aborted, Internal, ResourceExhausted, Unavailable)


class Acting:
    """Gets leave to act for owners of runs, anew for each call: what an agent may do is judged at that moment."""

    def __init__(self, stub: auth_service_pb2_grpc.AuthServiceStub) -> None:
        self._stub = stub

    async def credentials(self, tool: str, use: Use) -> Metadata:
        """What makes a call one of the owner's, with the scopes that the tool asks for alone. Raises ServiceError."""
        request = auth_service_pb2.ActForAgentRequest(
            agent_id=use.user.owner, scopes=BUILTIN_TOOLS[tool].scopes, run_id=use.user.run_id
        )
        answer = await self._stub.ActForAgent(request, timeout=use.timeout)
        return Metadata(("authorization", f"Bearer {answer.access_token}"))


@contextmanager
def as_step_failures(within: str = "") -> Iterator[None]:
    """Raises what a service refused as the failure of a step, which its class lets be tried again or not.

    `within` is what the service puts before the names that the tool's input has.
    """
    try:
        yield
    except ServiceError as error:
        raise _failure(error, within) from None


def _failure(error: ServiceError, within: str) -> StepFailed:
    faults = "; ".join(f"{fault.field.removeprefix(within)} {fault.description}" for fault in error.violations)
    message = faults or error.message
    match error:
        case DeadlineExceeded():
            return ToolTimedOut(message)
        case _ if isinstance(error, _PASSING):
            return ToolFailed(message, retry_after=error.retry_after)
    return RequestRejected(message)
