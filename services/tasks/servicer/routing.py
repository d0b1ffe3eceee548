"""RoutingService."""

from typing import Any

from baton.tasks.v1 import routing_service_pb2 as pb
from baton.tasks.v1 import routing_service_pb2_grpc as rpc
from grpc.aio import ServicerContext

from services.chassis import telemetry
from services.chassis.call import caller
from services.chassis.idempotency import Idempotency
from services.chassis.wakeup import Wakeup
from services.tasks.convert import routing as convert
from services.tasks.operations.routing import route_task

_Context = ServicerContext[Any, Any]


class RoutingServicer(rpc.RoutingServiceServicer):
    """Work that is handed to whoever has a role."""

    def __init__(self, idempotency: Idempotency, work_wakeup: Wakeup, default_timezone: str) -> None:
        self._idempotency = idempotency
        self._work_wakeup = work_wakeup
        self._default_timezone = default_timezone

    async def RouteTask(self, request: pb.RouteTaskRequest, context: _Context) -> pb.RouteTaskResponse:
        new, router, key = convert.routed_task(request, self._default_timezone), caller(), request.request_id
        traceparent, trace_id = telemetry.traceparent(), telemetry.trace_id()
        response = await self._idempotency.once(
            request,
            pb.RouteTaskResponse,
            lambda connection, clock: convert.routed_response(
                route_task(connection, new, traceparent, router, clock, request_id=key), trace_id
            ),
        )
        self._work_wakeup.notify(request.target)
        return response
