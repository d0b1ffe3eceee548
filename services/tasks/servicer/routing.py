"""RoutingService."""

from collections.abc import Callable, Mapping
from typing import Any

from baton.tasks.v1 import routing_service_pb2 as pb
from baton.tasks.v1 import routing_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis import telemetry
from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.idempotency import Idempotency
from services.chassis.wakeup import Wakeup
from services.tasks.convert import routing as convert
from services.tasks.models.task import NewTask, Task
from services.tasks.operations.routing import route_task

_Context = ServicerContext[Any, Any]


class RoutingServicer(rpc.RoutingServiceServicer):
    """Work that is handed to whoever has a role."""

    def __init__(self, idempotency: Idempotency, work_wakeup: Wakeup, default_timezone: str) -> None:
        self._idempotency = idempotency
        self._work_wakeup = work_wakeup
        self._default_timezone = default_timezone

    async def RouteTask(self, request: pb.RouteTaskRequest, context: _Context) -> pb.RouteTaskResponse:
        new = convert.routed_task(request, self._default_timezone)
        route = self._route(new, {"data": "task.data", "context": "context"}, request.request_id)
        trace_id = telemetry.trace_id()
        response = await self._idempotency.once(
            request,
            pb.RouteTaskResponse,
            lambda connection, clock: convert.routed_response(route(connection, clock), trace_id),
        )
        self._work_wakeup.notify(request.target)
        return response

    async def Notify(self, request: pb.NotifyRequest, context: _Context) -> pb.NotifyResponse:
        new = convert.notification(request, self._default_timezone)
        route = self._route(new, {"data": "data"}, request.request_id)
        trace_id = telemetry.trace_id()
        response = await self._idempotency.once(
            request,
            pb.NotifyResponse,
            lambda connection, clock: convert.notify_response(route(connection, clock), trace_id),
        )
        self._work_wakeup.notify(request.target)
        return response

    @staticmethod
    def _route(new: NewTask, given: Mapping[str, str], key: str) -> Callable[[Connection, Clock], Task]:
        traceparent, router = telemetry.traceparent(), caller()
        return lambda connection, clock: route_task(
            connection, new, traceparent, router, clock, given=given, request_id=key
        )
