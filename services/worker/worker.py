"""The worker put together, and its life: work until told to stop, then hand everything back."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from baton.sessions.v1 import agent_service_pb2_grpc
from baton.tasks.v1 import (
    file_service_pb2_grpc,
    probe_service_pb2_grpc,
    tool_service_pb2_grpc,
    work_service_pb2_grpc,
)
from grpc.aio import Channel

from services.chassis.clock import Clock
from services.chassis.egress.client import Egress
from services.chassis.ids import new_id
from services.worker.execution import Executor
from services.worker.files import Files
from services.worker.held import HeldRuns, LeaseTiming
from services.worker.leasing import Leasing
from services.worker.limits import ProcessLimits
from services.worker.probing import Probing
from services.worker.renewal import Renewal
from services.worker.reporting import Reporter
from services.worker.secrets.folder import Secrets
from services.worker.tools import builtin
from services.worker.tools.builtin import BuiltinTools
from services.worker.tools.mcp_pool import McpPool
from services.worker.tools.permissions import Permissions
from services.worker.tools.registry import Registry
from services.worker.tools.toolbox import Toolbox

# How long giving back may take once the grace is over.
_RELEASE_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Worker:
    """A client of the tasks service that does up to `concurrency` runs of one role at a time.

    One without a role does the probes of conditions, too.

    Of their tool calls at most `tool_calls` at a time go to any one tool server. Built-in tools make requests through
    `egress`, which without one reaches public addresses only. What the owners of runs hold it asks the sessions
    service.
    """

    def __init__(
        self,
        tasks: Channel,
        sessions: Channel,
        workflows: Channel,
        *,
        clock: Clock,
        concurrency: int = 100,
        tool_calls: int = 10,
        role: str = "",
        grace_seconds: float = 20.0,
        timing: LeaseTiming | None = None,
        egress: Egress | None = None,
        secrets: Secrets | None = None,
        limits: ProcessLimits | None = None,
    ) -> None:
        work = work_service_pb2_grpc.WorkServiceStub(tasks)
        self._grace_seconds = grace_seconds
        self._held = HeldRuns(concurrency, timing)
        self._pool = McpPool(tool_calls, secrets, limits=limits)
        self._registry = Registry(tool_service_pb2_grpc.ToolServiceStub(tasks), self._pool)
        files = Files(file_service_pb2_grpc.FileServiceStub(tasks))
        permissions = Permissions(agent_service_pb2_grpc.AgentServiceStub(sessions))
        tools = BuiltinTools(builtin.tools(egress or Egress(), tasks, sessions, workflows))
        toolbox = Toolbox(self._registry, self._pool, permissions, tools, secrets)
        executor = Executor(work, toolbox, Reporter(work), files, clock)
        worker_id = new_id()
        self._leasing = Leasing(work, worker_id, self._held, executor.execute, executor.give_back, role=role)
        self._renewal = Renewal(work, self._held)
        probes = probe_service_pb2_grpc.ProbeServiceStub(tasks)
        self._probing = None if role else Probing(probes, worker_id, toolbox)

    async def run(self, stop: Coroutine[Any, Any, None]) -> None:
        """Works until `stop` returns; then finishes or gives back what it holds, and ends its tool servers.

        Raises what broke a loop, if one did, after handing back just the same.
        """
        leasing = asyncio.create_task(self._leasing.run())
        upkeep = [asyncio.create_task(loop) for loop in (self._renewal.run(), self._registry.run())]
        probing = [asyncio.create_task(self._probing.run())] if self._probing else []
        stopping = asyncio.create_task(stop)
        _log.info("working")
        try:
            await asyncio.wait([leasing, stopping, *probing, *upkeep], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(leasing, stopping, *probing)
            await self._hand_back()
            await _cancel(*upkeep)
            await self._pool.close()
        _log.info("stopped")
        for task in (leasing, *probing, *upkeep):
            if not task.cancelled() and (error := task.exception()):
                raise error

    async def _hand_back(self) -> None:
        last_answer = asyncio.create_task(self._leasing.end())
        if not await self._held.wait_until_empty(self._grace_seconds):
            for run in self._held:
                run.release()
        await last_answer
        if not await self._held.wait_until_empty(_RELEASE_SECONDS):
            for run in self._held:
                run.lose()
            await self._held.wait_until_empty(_RELEASE_SECONDS)


async def _cancel(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait(tasks)
