"""The tasks service in the test's own process, and the callers that tests need most."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2, task_pb2
from baton.tasks.v1.run_service_pb2 import GetRunRequest
from baton.tasks.v1.run_service_pb2_grpc import RunServiceStub
from baton.tasks.v1.task_service_pb2 import CreateTaskRequest, RunTaskNowRequest
from baton.tasks.v1.task_service_pb2_grpc import TaskServiceStub
from baton.tasks.v1.tool_service_pb2_grpc import ToolServiceStub
from baton.tasks.v1.work_service_pb2 import (
    Lease,
    LeasedRun,
    LeaseRunsRequest,
    ReportRunsRequest,
    RunReport,
    RunSucceeded,
)
from baton.tasks.v1.work_service_pb2_grpc import WorkServiceStub
from google.protobuf.struct_pb2 import Struct
from grpc.aio import Channel
from sqlalchemy import Table, func, select

from services.chassis.database import Database
from services.chassis.ids import new_id
from services.chassis.structs import to_struct
from services.tasks.config import Settings
from services.tasks.operations.new_run import new_run
from services.tasks.service import Service
from services.tasks.store import queue
from services.tasks.store import task as task_store
from tests.support.clock import ManualClock
from tests.support.grpc import Signer, channel_of

one_engine = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
"""Marks tests of what is checked before a database is asked."""

EVERYTHING = ("tasks:read", "tasks:write", "runs:read", "runs:work", "tools:read", "tools:admin")
# Clocks are moved by years, and nobody's token shall end.
END_OF_TIME = datetime(9000, 1, 1, tzinfo=UTC)
NO_TRACE = "00-" + "0" * 31 + "1-" + "0" * 15 + "1-01"


@dataclass
class Tasks:
    """A running service and what a test needs around it."""

    settings: Settings
    service: Service
    address: str
    clock: ManualClock
    signer: Signer
    channels: list[Channel] = field(default_factory=list)

    @property
    def database(self) -> Database:
        return self.service.database

    def channel(self, scopes: Iterable[str] = EVERYTHING, agent_id: str | None = None, **claims: str) -> Channel:
        """The channel of somebody who holds `scopes`, with the other claims that `Signer.token` takes."""
        return self.channel_with(self.signer.token(scopes, agent_id=agent_id, expires_at=END_OF_TIME, **claims))

    def channel_with(self, token: str | None) -> Channel:
        channel = channel_of(self.address, token)
        self.channels.append(channel)
        return channel

    @cached_property
    def _channel(self) -> Channel:
        return self.channel()

    # Callers who may do everything but what needs `admin`.

    @cached_property
    def tasks(self) -> TaskServiceStub:
        return TaskServiceStub(self._channel)

    @cached_property
    def runs(self) -> RunServiceStub:
        return RunServiceStub(self._channel)

    @cached_property
    def work(self) -> WorkServiceStub:
        return WorkServiceStub(self._channel)

    @cached_property
    def tools(self) -> ToolServiceStub:
        return ToolServiceStub(self._channel)

    @cached_property
    def admin_tools(self) -> ToolServiceStub:
        return ToolServiceStub(self.channel(["admin"]))

    async def create(self, **fields: Any) -> task_pb2.Task:
        """Creates a task, manual and with nothing to do unless `fields` say more."""
        return (await self.tasks.CreateTask(task_request(**fields))).task

    async def run_now(self, task_id: str) -> str:
        """Queues a run; answers its id."""
        return (await self.tasks.RunTaskNow(RunTaskNowRequest(task_id=task_id))).details.run_id

    async def queue_runs(self, task_id: str, count: int, **changes: Any) -> list[str]:
        """Queues many runs in one transaction, straight through the store; answers their ids in order."""
        now = self.clock.now()

        def add(connection: Any, clock: Any) -> list[str]:
            task = task_store.get_task(connection, task_id)
            assert task is not None
            new = [new_run(task, due_at=now, traceparent=NO_TRACE) for _ in range(count)]
            queue.add_runs(connection, [_changed(run, changes) for run in new], now)
            return [run.id for run in new]

        return await self.database.transact(add)

    async def lease(self, limit: int = 1, **fields: Any) -> list[LeasedRun]:
        """Leases due runs as a new worker."""
        request = LeaseRunsRequest(worker_id=new_id(), limit=limit, **fields)
        return list((await self.work.LeaseRuns(request)).runs)

    async def report(self, *reports: RunReport) -> list[bool]:
        """Reports; answers for each whether it was accepted."""
        response = await self.work.ReportRuns(ReportRunsRequest(reports=reports))
        return [receipt.accepted for receipt in response.receipts]

    async def finish(self, lease: Lease, **output: Any) -> bool:
        """Reports that a run succeeded."""
        (accepted,) = await self.report(RunReport(lease=lease, succeeded=RunSucceeded(output=to_struct(output))))
        return accepted

    async def run(self, run_id: str) -> run_pb2.Run:
        return (await self.runs.GetRun(GetRunRequest(run_id=run_id))).run

    async def count(self, table: Table) -> int:
        """The rows of a table."""
        query = select(func.count()).select_from(table)
        return await self.database.read(lambda connection, clock: connection.execute(query).scalar_one())


def _changed(run: Any, changes: dict[str, Any]) -> Any:
    return type(run)(**{**vars(run), **changes})


def task_request(**fields: Any) -> CreateTaskRequest:
    """A task to create, manual and with nothing to do unless `fields` say more; `payload` is a dict."""
    payload = fields.pop("payload", {"pipeline": []})
    given = {"title": "a task", "schedule_kind": task_pb2.SCHEDULE_KIND_MANUAL, **fields}
    return CreateTaskRequest(payload=payload if isinstance(payload, Struct) else to_struct(payload), **given)
