"""How long events are kept."""

from datetime import timedelta
from typing import Any

import pytest
from baton.tasks.v1 import event_service_pb2 as pb
from baton.tasks.v1.event_service_pb2_grpc import EventServiceStub
from baton.tasks.v1.run_service_pb2 import PruneRunsRequest
from baton.tasks.v1.run_service_pb2_grpc import RunServiceStub

from services.chassis.clock import EPOCH
from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.tasks import pruning
from services.tasks.housekeeping import Retention
from services.tasks.operations import dispatch, retention
from services.tasks.store import tables
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.events import dispatch_all, event_of, events_of, publish, waiting_for
from tests.integration.tasks.running import Tasks, one_engine


async def clean_up(tasks: Tasks, agent_id: str | None = None, **fields: Any) -> pb.PruneEventsResponse:
    admin = EventServiceStub(tasks.channel(["admin"], agent_id=agent_id))
    return await admin.PruneEvents(pb.PruneEventsRequest(**fields))


async def test_old_events_go_with_their_deliveries_and_runs_stay(tasks: Tasks) -> None:
    await waiting_for(tasks, "order.*")
    old = [await publish(tasks) for _ in range(3)]
    tasks.clock.advance(hours=24)
    young = await publish(tasks)
    answer = await clean_up(tasks)
    assert (answer.success, answer.message) == (True, "3 events are deleted")
    details, cutoff = answer.details, tasks.clock.now() - timedelta(hours=24)
    assert (details.deleted_count, details.max_age_hours, details.complete) == (3, 24, True)
    assert details.cutoff_timestamp == (cutoff - EPOCH) // timedelta(milliseconds=1)
    assert [event.id for event in await events_of(tasks)] == [young.event_id]
    assert (await tasks.count(tables.event_deliveries), await tasks.count(tables.runs)) == (1, 4)
    assert (await tasks.run(old[0].deliveries[0].run_id)).event_id == old[0].event_id
    assert (await clean_up(tasks, max_age_hours=23)).details.deleted_count == 0
    tasks.clock.advance(hours=24)
    assert (await clean_up(tasks, max_age_hours=23)).details.deleted_count == 1


async def test_what_is_still_to_be_matched_stays(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "BATCH", 1)
    for _ in range(2):
        await waiting_for(tasks, "order.*")
    done = await publish(tasks)
    tasks.clock.advance(hours=100)
    assert (await clean_up(tasks)).details.deleted_count == 0
    await dispatch_all(tasks)
    assert (await event_of(tasks, done.event_id)).event.triggered_runs == 2
    assert (await clean_up(tasks)).details.deleted_count == 1


async def test_more_than_a_batch_is_deleted_batch_by_batch(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 4)
    monkeypatch.setattr(retention, "_MAX_DELIVERIES", 3)
    await waiting_for(tasks, "order.*")
    for _ in range(11):
        await publish(tasks)
    tasks.clock.advance(hours=25)
    details = (await clean_up(tasks)).details
    assert (details.deleted_count, details.complete) == (11, True)


async def test_when_time_runs_out_the_rest_is_left_for_the_next_call(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(tasks)
    tasks.clock.advance(hours=25)
    monkeypatch.setattr(pruning, "_RESERVED_SECONDS", 1000.0)
    details = (await clean_up(tasks)).details
    assert (details.deleted_count, details.complete) == (0, False)
    monkeypatch.undo()
    assert (await clean_up(tasks)).details.deleted_count == 1


async def test_a_call_is_audited_once(tasks: Tasks) -> None:
    admin = new_id()
    await publish(tasks)
    tasks.clock.advance(hours=2)
    first = await clean_up(tasks, admin, max_age_hours=1, request_id="tidy up")
    await publish(tasks)
    tasks.clock.advance(hours=2)
    # Repeated, it answers the same and deletes nothing that has grown old since.
    assert await clean_up(tasks, admin, max_age_hours=1, request_id="tidy up") == first
    assert await tasks.count(tables.events) == 1
    (entry,) = [entry for entry in await audited_changes(tasks) if entry["action"] == "event.prune"]
    assert (entry["actor"], entry["request_id"], entry["after"]["events"]) == (admin, "tidy up", 1)


@pytest.mark.parametrize("hours", [0, 876_001])
@one_engine
async def test_what_is_refused(tasks: Tasks, hours: int) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await clean_up(tasks, max_age_hours=hours)
    assert [violation.field for violation in refused.value.violations] == ["max_age_hours"]


async def test_events_go_with_the_runs_of_their_age(tasks: Tasks) -> None:
    await waiting_for(tasks, "order.*")
    await publish(tasks)
    tasks.clock.advance(days=31)
    await publish(tasks)
    runs = RunServiceStub(tasks.channel(["admin"]))
    assert (await runs.PruneRuns(PruneRunsRequest(older_than_days=30))).events == 1
    assert await tasks.count(tables.events) == 2
    pruned = await runs.PruneRuns(PruneRunsRequest(older_than_days=30, dry_run=False))
    assert (pruned.events, pruned.complete) == (1, True)
    assert (await tasks.count(tables.events), await tasks.count(tables.event_deliveries)) == (1, 1)


async def test_the_daily_look_deletes_them_too(tasks: Tasks) -> None:
    await publish(tasks)
    tasks.clock.advance(days=31)
    daily = Retention(tasks.database, days=30)
    assert await daily.step() == 86_400
    assert await tasks.count(tables.events) == 0
    entry = (await audited_changes(tasks))[-1]
    assert (entry["action"], entry["actor"], entry["after"]["events"]) == ("run.prune", "baton.retention", 1)
