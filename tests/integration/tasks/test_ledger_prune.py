"""Deleting what is old from the ledger."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from baton.tasks.v1.ledger_service_pb2 import PruneLedgerRunsRequest, PruneLedgerRunsResponse

from services.chassis.errors import DeadlineExceeded, InvalidArgument, PermissionDenied
from services.tasks.operations import retention
from services.tasks.store import tables
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.reporting import AWAITING, FAILED, QUEUED, RUNNING, SKIPPED, SUCCEEDED, Somebody, reporter
from tests.integration.tasks.running import Tasks

DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def admin(tasks: Tasks) -> Somebody:
    return Somebody(tasks, "admin")


async def prune(admin: Somebody, date: str, request_id: str = "", **options: Any) -> PruneLedgerRunsResponse:
    request = PruneLedgerRunsRequest(date=date, request_id=request_id)
    return await admin.ledger.PruneLedgerRuns(request, **options)


async def test_only_finished_runs_that_began_before_are_deleted(tasks: Tasks, admin: Somebody) -> None:
    script = reporter(tasks)
    old = DAY - timedelta(microseconds=1000)
    gone = [await script.report(status, started_at=old) for status in (SUCCEEDED, FAILED, SKIPPED)]
    kept = [await script.report(status, started_at=old) for status in (QUEUED, RUNNING, AWAITING)]
    kept += [await script.report(SUCCEEDED, started_at=DAY)]
    answer = await prune(admin, "2026-03-01")
    assert (answer.deleted, answer.cutoff) == (3, "2026-03-01T00:00:00.000000Z")
    assert {run.id for run in await admin.listed()} == {run.id for run in kept}
    assert not {run.id for run in gone} & {run.id for run in kept}
    assert (await prune(admin, "2026-03-01T02:00:00+02:00")).deleted == 0


async def test_a_date_in_the_future_deletes_nothing(tasks: Tasks, admin: Somebody) -> None:
    run = await reporter(tasks).report(SUCCEEDED, started_at=DAY)
    with pytest.raises(InvalidArgument) as refused:
        await prune(admin, (tasks.clock.now() + timedelta(seconds=1)).isoformat())
    assert [(fault.field, fault.description) for fault in refused.value.violations] == [("date", "lies in the future")]
    assert [kept.id for kept in await admin.listed()] == [run.id]
    assert await audited_changes(tasks) == []


async def test_one_call_leaves_one_audit_row(tasks: Tasks, admin: Somebody) -> None:
    await reporter(tasks).report(SUCCEEDED, started_at=DAY)
    answers = [await prune(admin, "2026-03-02", request_id="weekly") for _ in range(2)]
    assert answers[0] == answers[1]
    (entry,) = await audited_changes(tasks)
    assert (entry["action"], entry["actor"], entry["request_id"]) == ("run.prune", admin.id, "weekly")
    assert entry["after"]["runs"] == 1
    assert datetime.fromisoformat(entry["after"]["cutoff"]) == DAY + timedelta(days=1)


async def test_a_key_that_was_used_for_another_date_deletes_nothing(tasks: Tasks, admin: Somebody) -> None:
    await prune(admin, "2026-01-01", request_id="weekly")
    await reporter(tasks).report(SUCCEEDED, started_at=DAY)
    with pytest.raises(InvalidArgument) as refused:
        await prune(admin, "2026-03-02", request_id="weekly")
    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"
    assert await tasks.count(tables.run_history) == 1


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)


@pytest.mark.usefixtures("small_batches")
async def test_many_batches_are_one_call(tasks: Tasks, admin: Somebody) -> None:
    script = reporter(tasks)
    for number in range(5):
        await script.report(SUCCEEDED, started_at=DAY + timedelta(hours=number))
    assert (await prune(admin, "2026-03-02")).deleted == 5
    assert len(await audited_changes(tasks)) == 1


async def test_a_call_without_time_says_that_there_is_more(tasks: Tasks, admin: Somebody) -> None:
    await reporter(tasks).report(SUCCEEDED, started_at=DAY)
    with pytest.raises(DeadlineExceeded) as refused:
        await prune(admin, "2026-03-02", timeout=1.5)
    assert refused.value.reason == "PRUNE_INCOMPLETE"
    (entry,) = await audited_changes(tasks)
    assert entry["after"]["complete"] is False


async def test_pruning_is_for_admins(tasks: Tasks) -> None:
    almost = Somebody(tasks, "runs:report", "runs:read", "approvals:decide", "tasks:write")
    with pytest.raises(PermissionDenied):
        await prune(almost, "2026-03-02")


@pytest.mark.parametrize("date", ["", "soon"])
async def test_a_date_is_asked_for_by_name(admin: Somebody, date: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await prune(admin, date)
    assert [violation.field for violation in refused.value.violations] == ["date"]
