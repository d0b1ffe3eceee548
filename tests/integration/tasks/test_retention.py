"""Deleting what is old."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from baton.tasks.v1.run_service_pb2 import PruneRunsRequest, PruneRunsResponse
from baton.tasks.v1.run_service_pb2_grpc import RunServiceStub
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import insert

from services.chassis.errors import InvalidArgument, PermissionDenied
from services.chassis.ids import id_at, new_id
from services.tasks import pruning
from services.tasks.housekeeping import Retention
from services.tasks.models.pruning import Age
from services.tasks.operations import retention
from services.tasks.store import tables
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.past import add_past_runs, add_past_steps, failed_run, listed, past_run
from tests.integration.tasks.running import Tasks, one_engine


async def prune(tasks: Tasks, **fields: Any) -> PruneRunsResponse:
    runs = RunServiceStub(tasks.channel(["admin"]))
    if isinstance(before := fields.get("before"), datetime):
        fields["before"] = Timestamp()
        fields["before"].FromDatetime(before)
    return await runs.PruneRuns(PruneRunsRequest(**fields))


async def add_old(tasks: Tasks, days_ago: float, count: int = 1, **changes: Any) -> list[str]:
    """Finished runs of that age, with two steps each."""
    instant = tasks.clock.now() - timedelta(days=days_ago)
    dates = dict.fromkeys(("created_at", "started_at", "finished_at"), instant)
    run_ids = await add_past_runs(tasks, [past_run(**{"id": id_at(instant), **dates, **changes}) for _ in range(count)])

    await add_past_steps(tasks, run_ids, 2)
    return run_ids


async def add_occurrences(tasks: Tasks, *days_ago: float) -> None:
    task, now = await tasks.create(), tasks.clock.now()
    rows = [
        {"task_id": task.id, "scheduled_for": instant, "through": None, "outcome": "missed", "reason": "",
         "run_id": None, "decided_at": instant} for instant in (now - timedelta(days=days) for days in days_ago)
    ]  # fmt: skip
    await tasks.database.transact(lambda connection, clock: connection.execute(insert(tables.occurrences), rows))


async def test_only_finished_runs_of_that_age_go_with_their_steps(tasks: Tasks) -> None:
    task = await tasks.create()
    live = id_at(tasks.clock.now() - timedelta(days=200))
    await tasks.queue_runs(task.id, 1, id=live)
    await add_old(tasks, 100, 3)
    # It waited for long, and ended the other day.
    (late,) = await add_old(tasks, 100, finished_at=tasks.clock.now() - timedelta(days=2))
    (young,) = await add_old(tasks, 10)
    await add_occurrences(tasks, 200, 91, 89)
    cutoff = tasks.clock.now() - timedelta(days=90)
    done = await prune(tasks, before=cutoff, dry_run=False)
    assert (done.dry_run, done.runs, done.steps, done.occurrences, done.complete) == (False, 3, 6, 2, True)
    assert done.cutoff.ToDatetime(cutoff.tzinfo) == cutoff
    assert await listed(tasks) == sorted([live, late, young], reverse=True)
    assert (await tasks.count(tables.run_steps), await tasks.count(tables.occurrences)) == (4, 1)
    again = await prune(tasks, before=cutoff, dry_run=False)
    assert (again.runs, again.steps, again.occurrences, again.complete) == (0, 0, 0, True)


async def test_a_dry_run_counts_and_deletes_nothing(tasks: Tasks) -> None:
    await add_old(tasks, 100, 3)
    await add_old(tasks, 10)
    await add_occurrences(tasks, 100)
    for fields in ({}, {"dry_run": True}):
        counted = await prune(tasks, older_than_days=90, **fields)
        assert (counted.dry_run, counted.runs, counted.steps, counted.occurrences) == (True, 3, 6, 1)
    assert await tasks.count(tables.run_history) == 4
    assert await audited_changes(tasks) == []


async def test_a_call_is_audited_once_with_its_counts(tasks: Tasks) -> None:
    await add_old(tasks, 100, 2)
    admin = new_id()
    runs = RunServiceStub(tasks.channel(["admin"], agent_id=admin))
    request = PruneRunsRequest(older_than_days=90, dry_run=False, request_id="tidy up")
    first = await runs.PruneRuns(request)
    # Repeated, it answers the same and deletes nothing that has grown old since.
    await add_old(tasks, 95)
    assert await runs.PruneRuns(request) == first
    assert await tasks.count(tables.run_history) == 1
    (entry,) = await audited_changes(tasks)
    assert (entry["actor"], entry["request_id"]) == (admin, "tidy up")
    assert (entry["after"]["runs"], entry["after"]["steps"], entry["after"]["complete"]) == (2, 4, True)


async def test_more_than_a_batch_is_deleted_batch_by_batch(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 4)
    await add_old(tasks, 100, 11)
    await add_occurrences(tasks, *range(100, 109))
    done = await prune(tasks, older_than_days=90, dry_run=False)
    assert (done.runs, done.steps, done.occurrences, done.complete) == (11, 22, 9, True)


async def test_when_time_runs_out_the_rest_is_left_for_the_next_call(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_old(tasks, 100, 3)
    monkeypatch.setattr(pruning, "_RESERVED_SECONDS", 1000.0)
    done = await prune(tasks, older_than_days=90, dry_run=False)
    assert (done.runs, done.complete) == (0, False)
    monkeypatch.undo()
    assert (await prune(tasks, older_than_days=90, dry_run=False)).runs == 3


async def test_texts_of_deleted_runs_are_found_no_more(tasks: Tasks) -> None:
    instant = tasks.clock.now() - timedelta(days=100)
    await add_past_runs(tasks, [failed_run("needle", id=id_at(instant), finished_at=instant)])
    assert len(await listed(tasks, text="needle")) == 1
    await prune(tasks, older_than_days=90, dry_run=False)
    assert await listed(tasks, text="needle") == []


async def test_a_batch_goes_by_the_start_when_it_is_asked_to(tasks: Tasks) -> None:
    (old,) = await add_old(tasks, 100, finished_at=tasks.clock.now())
    (never_started,) = await add_old(tasks, 100, started_at=None)
    cutoff = tasks.clock.now() - timedelta(days=90)
    pruned = await tasks.database.transact(
        lambda connection, clock: retention.prune_batch(connection, cutoff, 10, clock, age=Age.STARTED)
    )
    assert (pruned.runs, pruned.steps, pruned.complete) == (1, 2, True)
    assert await listed(tasks) == [never_started]
    assert old != never_started


async def test_the_daily_look_deletes_and_is_audited(tasks: Tasks) -> None:
    await add_old(tasks, 31)
    (young,) = await add_old(tasks, 29)
    daily = Retention(tasks.database, days=30)
    assert await daily.step() == 86_400
    assert await listed(tasks) == [young]
    await daily.step()
    (entry,) = await audited_changes(tasks)
    assert (entry["actor"], entry["after"]["runs"]) == ("baton.retention", 1)


@one_engine
async def test_what_is_refused(tasks: Tasks) -> None:
    now = tasks.clock.now()
    for fields in ({}, {"before": now, "older_than_days": 1}, {"before": now + timedelta(seconds=1)}):
        for dry_run in (True, False):
            with pytest.raises(InvalidArgument) as refused:
                await prune(tasks, dry_run=dry_run, **fields)
            assert [violation.field for violation in refused.value.violations] == ["before"]
    with pytest.raises(PermissionDenied):
        await tasks.runs.PruneRuns(PruneRunsRequest(older_than_days=1))
