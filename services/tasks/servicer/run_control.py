"""The methods of RunService that change runs."""

from typing import Any

from baton.tasks.v1 import run_service_pb2 as pb
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis import telemetry
from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.idempotency import Idempotency
from services.chassis.wakeup import Wakeup
from services.tasks.convert.run import run_message
from services.tasks.convert.start import created_message, wanted_run
from services.tasks.operations import run as operations
from services.tasks.operations.start import start_all

_Context = ServicerContext[Any, Any]


class RunControl:
    """Making runs, calling them off, doing them anew."""

    _idempotency: Idempotency
    _work_wakeup: Wakeup

    async def CreateRuns(self, request: pb.CreateRunsRequest, context: _Context) -> pb.CreateRunsResponse:
        starter, traceparent = caller(), telemetry.traceparent()
        wanted = [wanted_run(run, starter, traceparent) for run in request.runs]
        roles: set[str] = set()

        def create(connection: Connection, clock: Clock) -> pb.CreateRunsResponse:
            started = start_all(connection, wanted, clock)
            roles.update(run.role for run in started if not run.duplicate)
            return pb.CreateRunsResponse(runs=[created_message(run) for run in started])

        response = await self._idempotency.once(request, pb.CreateRunsResponse, create)
        if roles:
            self._work_wakeup.notify(*roles)
        return response

    async def CancelRun(self, request: pb.CancelRunRequest, context: _Context) -> pb.CancelRunResponse:
        run_id, reason, canceler = request.run_id, request.reason, caller()
        response = await self._idempotency.once(
            request,
            pb.CancelRunResponse,
            lambda connection, clock: pb.CancelRunResponse(
                run=run_message(operations.cancel_run(connection, run_id, reason, canceler, clock))
            ),
        )
        # Somebody else may come first in its line now.
        self._work_wakeup.notify(response.run.role)
        return response

    async def RetryRun(self, request: pb.RetryRunRequest, context: _Context) -> pb.RetryRunResponse:
        run_id, asker, traceparent = request.run_id, caller(), telemetry.traceparent()
        response = await self._idempotency.once(
            request,
            pb.RetryRunResponse,
            lambda connection, clock: pb.RetryRunResponse(
                run=run_message(operations.retry_run(connection, run_id, traceparent, asker, clock))
            ),
        )
        self._work_wakeup.notify(response.run.role)
        return response
