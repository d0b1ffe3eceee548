"""Somebody who reports runs, and somebody who decides on them."""

from datetime import datetime
from typing import Any

from baton.tasks.v1 import run_pb2
from baton.tasks.v1.ledger_pb2 import LedgerRun
from baton.tasks.v1.ledger_service_pb2 import (
    ApproveLedgerRunRequest,
    CancelLedgerRunRequest,
    CreateLedgerRunRequest,
    ExportLedgerRunsRequest,
    ListLedgerRunsRequest,
    PageLedgerRunsRequest,
    RejectLedgerRunRequest,
    UpdateLedgerRunRequest,
)
from baton.tasks.v1.ledger_service_pb2_grpc import LedgerServiceStub
from google.protobuf.field_mask_pb2 import FieldMask

from services.chassis.ids import new_id
from services.chassis.structs import to_struct
from tests.integration.tasks.running import Tasks

QUEUED, RUNNING = run_pb2.RUN_STATUS_QUEUED, run_pb2.RUN_STATUS_RUNNING
SUCCEEDED, FAILED, SKIPPED = run_pb2.RUN_STATUS_SUCCEEDED, run_pb2.RUN_STATUS_FAILED, run_pb2.RUN_STATUS_SKIPPED
AWAITING, CANCELED = run_pb2.RUN_STATUS_AWAITING_APPROVAL, run_pb2.RUN_STATUS_CANCELED
PENDING, APPROVED = run_pb2.APPROVAL_STATE_PENDING, run_pb2.APPROVAL_STATE_APPROVED
REJECTED, CANCELLED = run_pb2.APPROVAL_STATE_REJECTED, run_pb2.APPROVAL_STATE_CANCELLED
STATUSES = (QUEUED, RUNNING, SUCCEEDED, FAILED, AWAITING, SKIPPED)


class Somebody:
    """An agent with scopes of its own who talks to the ledger."""

    def __init__(self, tasks: Tasks, *scopes: str) -> None:
        self.id = new_id()
        self.ledger = LedgerServiceStub(tasks.channel(scopes, agent_id=self.id))

    async def report(
        self,
        status: Any = RUNNING,
        started_at: datetime | str = "",
        inputs: dict[str, Any] | None = None,
        **fields: Any,
    ) -> LedgerRun:
        """Reports a run for the first time."""
        given = {"task": "seo.validate", "run_id": "nightly-2026-03-01", "status": status, **fields}
        started = started_at.isoformat() if isinstance(started_at, datetime) else started_at
        request = CreateLedgerRunRequest(**given, started_at=started, inputs=to_struct(inputs) if inputs else None)
        return (await self.ledger.CreateLedgerRun(request)).run

    async def patch(self, run_id: str, *cleared: str, **fields: Any) -> LedgerRun:
        """Reports what is new, and clears some fields."""
        mask = FieldMask(paths=[*fields, *cleared]) if cleared else None
        request = UpdateLedgerRunRequest(id=run_id, update_mask=mask, **fields)
        return (await self.ledger.UpdateLedgerRun(request)).run

    async def approve(self, run_id: str, note: str = "") -> LedgerRun:
        return (await self.ledger.ApproveLedgerRun(ApproveLedgerRunRequest(id=run_id, note=note))).run

    async def reject(self, run_id: str, note: str = "") -> LedgerRun:
        return (await self.ledger.RejectLedgerRun(RejectLedgerRunRequest(id=run_id, note=note))).run

    async def cancel(self, run_id: str, note: str = "") -> LedgerRun:
        return (await self.ledger.CancelLedgerRun(CancelLedgerRunRequest(id=run_id, note=note))).run

    async def listed(self, **filters: Any) -> list[LedgerRun]:
        return [*(await self.ledger.ListLedgerRuns(ListLedgerRunsRequest(**filters))).items]

    async def pages(self, **filters: Any) -> list[list[LedgerRun]]:
        """Each page, from the first to the last."""
        found, cursor = [], ""
        while True:
            page = await self.ledger.PageLedgerRuns(PageLedgerRunsRequest(**filters, cursor=cursor))
            found.append(list(page.items))
            if not page.HasField("next_cursor"):
                return found
            cursor = page.next_cursor

    async def csv(self, **filters: Any) -> str:
        """The download, whole."""
        chunks = self.ledger.ExportLedgerRuns(ExportLedgerRunsRequest(**filters))
        return b"".join([chunk.data async for chunk in chunks]).decode()


def reporter(tasks: Tasks) -> Somebody:
    """A script that reports and reads."""
    return Somebody(tasks, "runs:report", "runs:read")


def approver(tasks: Tasks) -> Somebody:
    """A person who decides and reads."""
    return Somebody(tasks, "approvals:decide", "runs:read")
