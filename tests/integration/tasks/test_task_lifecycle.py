"""Pausing, resuming, canceling and snoozing tasks."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2, task_pb2
from baton.tasks.v1 import task_service_pb2 as pb
from baton.tasks.v1.work_service_pb2 import RenewRunsRequest

from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from services.chassis.ids import new_id
from services.tasks.store import tables
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.lifecycle import (
    ACTIVE,
    CANCELED,
    COMPLETED,
    MISSED,
    OUTCOME_CANCELED,
    OUTCOME_PAUSED,
    PAUSED,
    RAN,
    TEN_MINUTES,
    at,
    cancel,
    completed,
    every_ten_minutes,
    occurrences,
    once,
    outcomes,
    pause,
    read,
    resume,
    runs_of,
    snooze,
    to_ten_minutes,
    update,
)
from tests.integration.tasks.running import Tasks, one_engine
from tests.integration.tasks.work import PROMPTLY, waiting_workers

Call = Callable[[Tasks, str], Awaitable[Any]]


async def by_ten_minutes(tasks: Tasks, task_id: str, seconds: int = 600) -> Any:
    return await snooze(tasks, task_id, seconds)


async def test_a_paused_task_does_not_fire(tasks: Tasks) -> None:
    nominal = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    change = await pause(tasks, task.id)
    assert (change.old_status, change.new_status, change.affected_work_items) == (ACTIVE, PAUSED, 0)
    paused = await read(tasks, task.id)
    assert (paused.status, at(paused.paused_at), at(paused.next_fire_at)) == (PAUSED, tasks.clock.now(), nominal)
    tasks.clock.advance(minutes=25)
    await tasks.service.scheduler.step()
    assert await runs_of(tasks, task.id) == []
    assert await outcomes(tasks, task.id) == []


async def test_what_is_queued_waits_while_its_task_is_paused_and_what_runs_goes_on(tasks: Tasks) -> None:
    task = await tasks.create()
    running, queued = [await tasks.run_now(task.id) for _ in range(2)]
    (leased,) = await tasks.lease()
    assert leased.lease.run_id == running
    await pause(tasks, task.id)
    assert await tasks.lease() == []
    assert await tasks.finish(leased.lease)
    assert (await tasks.run(running)).status == run_pb2.RUN_STATUS_SUCCEEDED
    await resume(tasks, task.id)
    assert [run.lease.run_id for run in await tasks.lease()] == [queued]


@pytest.mark.usefixtures("hints_only")
async def test_a_waiting_worker_hears_of_a_resumed_task(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    await pause(tasks, task.id)
    (waiting,) = await waiting_workers(tasks)
    await resume(tasks, task.id)
    assert await asyncio.wait_for(waiting, PROMPTLY) == [run_id]


@pytest.mark.parametrize(
    ("misfire", "expected"),
    [
        (task_pb2.MISFIRE_RUN_ONCE, [OUTCOME_PAUSED, OUTCOME_PAUSED, RAN]),
        (task_pb2.MISFIRE_RUN_ALL, [RAN, RAN, RAN]),
        (task_pb2.MISFIRE_SKIP, [OUTCOME_PAUSED, OUTCOME_PAUSED, OUTCOME_PAUSED]),
    ],
)
async def test_what_passed_while_a_task_was_paused_follows_its_misfire_rule(
    tasks: Tasks, misfire: Any, expected: list[Any]
) -> None:
    nominal = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks, misfire=misfire)
    await pause(tasks, task.id)
    tasks.clock.advance(minutes=35)
    change = await resume(tasks, task.id)
    assert (change.old_status, change.new_status) == (PAUSED, ACTIVE)
    times = [nominal + n * TEN_MINUTES for n in range(3)]
    assert await judged(tasks, task.id, times) == expected
    resumed = await read(tasks, task.id)
    assert at(resumed.next_fire_at) == at(resumed.next_scheduled_for) == nominal + 3 * TEN_MINUTES
    assert (resumed.status, resumed.HasField("paused_at")) == (ACTIVE, False)
    assert len(await runs_of(tasks, task.id)) == expected.count(RAN)
    # Each time was judged once: the scheduler finds nothing left of them.
    await tasks.service.scheduler.step()
    assert len(await runs_of(tasks, task.id)) == expected.count(RAN)


async def judged(tasks: Tasks, task_id: str, times: list[datetime]) -> list[Any]:
    """The outcome of each of the times, each of which has exactly one."""
    items = (await occurrences(tasks, task_id, limit=200)).items
    found = []
    for time in times:
        (outcome,) = [
            item.outcome
            for item in items
            if at(item.scheduled_for) <= time <= at(item.through if item.HasField("through") else item.scheduled_for)
        ]
        found.append(outcome)
    return found


async def test_a_resumed_task_fires_again(tasks: Tasks) -> None:
    nominal = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    await pause(tasks, task.id)
    await resume(tasks, task.id)
    assert await outcomes(tasks, task.id) == []
    tasks.clock.advance(minutes=10)
    await tasks.service.scheduler.step()
    assert await outcomes(tasks, task.id) == [(nominal, RAN)]


async def test_a_single_instant_that_passed_while_paused_completes_the_task(tasks: Tasks) -> None:
    instant = tasks.clock.now() + timedelta(minutes=1)
    task = await once(tasks, instant)
    await pause(tasks, task.id)
    tasks.clock.advance(hours=3)
    change = await resume(tasks, task.id)
    assert (change.old_status, change.new_status) == (PAUSED, COMPLETED)
    assert await outcomes(tasks, task.id) == [(instant, OUTCOME_PAUSED)]
    assert not (await read(tasks, task.id)).HasField("next_fire_at")


async def test_what_was_overdue_before_the_pause_was_missed(tasks: Tasks) -> None:
    nominal = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    # Nobody looked at it for three hours.
    tasks.clock.advance(hours=3)
    await pause(tasks, task.id)
    tasks.clock.advance(hours=3)
    await resume(tasks, task.id)
    before, during, last = await judged(tasks, task.id, [nominal, nominal + timedelta(hours=4), tasks.clock.now()])
    assert (before, during, last) == (MISSED, OUTCOME_PAUSED, RAN)


async def test_canceling_ends_what_is_queued_and_stops_what_runs(tasks: Tasks) -> None:
    nominal = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    running, *queued = [await tasks.run_now(task.id) for _ in range(3)]
    (leased,) = await tasks.lease()
    change = await cancel(tasks, task.id)
    assert (change.old_status, change.new_status, change.affected_work_items) == (ACTIVE, CANCELED, 3)
    for run_id in queued:
        run = await tasks.run(run_id)
        assert (run.status, getattr(run.error, "class")) == (run_pb2.RUN_STATUS_CANCELED, run_pb2.ERROR_CLASS_CANCELED)
    assert (await tasks.run(running)).status == run_pb2.RUN_STATUS_RUNNING
    (renewed,) = (await tasks.work.RenewRuns(RenewRunsRequest(leases=[leased.lease]))).leases
    assert renewed.cancel_requested
    assert await tasks.lease() == []
    assert await outcomes(tasks, task.id) == [(nominal, OUTCOME_CANCELED)]
    canceled = await read(tasks, task.id)
    assert not canceled.HasField("next_fire_at")
    assert not canceled.HasField("next_scheduled_for")
    assert list((await occurrences(tasks, task.id)).next) == []
    tasks.clock.advance(hours=1)
    await tasks.service.scheduler.step()
    assert len(await runs_of(tasks, task.id)) == 3


async def test_a_canceled_pause_accounts_for_all_that_passed(tasks: Tasks) -> None:
    first = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    await pause(tasks, task.id)
    tasks.clock.advance(days=3, minutes=1)
    assert (await cancel(tasks, task.id)).old_status == PAUSED
    (item,) = (await occurrences(tasks, task.id)).items
    assert (at(item.scheduled_for), at(item.through)) == (first, tasks.clock.now() - timedelta(minutes=1))
    assert (item.outcome, item.reason) == (OUTCOME_CANCELED, "the task was canceled")
    assert not (await read(tasks, task.id)).HasField("paused_at")


@pytest.mark.parametrize("again", [pause, cancel])
async def test_the_same_status_once_more_changes_nothing(tasks: Tasks, again: Call) -> None:
    task = await every_ten_minutes(tasks)
    await again(tasks, task.id)
    before = await read(tasks, task.id)
    tasks.clock.advance(seconds=5)
    change = await again(tasks, task.id)
    assert (change.old_status, change.new_status, change.affected_work_items) == (before.status, before.status, 0)
    assert await read(tasks, task.id) == before


async def test_resuming_what_is_not_paused_changes_nothing(tasks: Tasks) -> None:
    for task in (await every_ten_minutes(tasks), await completed(tasks)):
        tasks.clock.advance(seconds=5)
        change = await resume(tasks, task.id)
        assert (change.old_status, change.new_status) == (task.status, task.status)
        assert await read(tasks, task.id) == task


async def test_canceled_is_final(tasks: Tasks) -> None:
    task = await every_ten_minutes(tasks)
    await cancel(tasks, task.id)
    for call, reason in (
        (pause, "TASK_CANCELED"),
        (resume, "TASK_CANCELED"),
        (by_ten_minutes, "TASK_NOT_ACTIVE"),
        (Tasks.run_now, "TASK_NOT_ACTIVE"),
    ):
        with pytest.raises(FailedPrecondition, match=task.id) as refused:
            await call(tasks, task.id)
        assert refused.value.reason == reason
        assert refused.value.metadata["task_id"] == task.id
    assert (await read(tasks, task.id)).status == CANCELED
    assert await tasks.count(tables.runs) == 0


async def test_a_completed_task_can_be_run_by_hand_and_not_be_paused(tasks: Tasks) -> None:
    task = await completed(tasks)
    assert task.status == COMPLETED
    with pytest.raises(FailedPrecondition) as refused:
        await pause(tasks, task.id)
    assert refused.value.reason == "TASK_COMPLETED"
    run_id = await tasks.run_now(task.id)
    assert [run.lease.run_id for run in await tasks.lease()] == [run_id]
    assert (await cancel(tasks, task.id)).old_status == COMPLETED


async def test_a_snoozed_time_fires_later_under_its_own_name(tasks: Tasks) -> None:
    nominal = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    details = await snooze(tasks, task.id, 90)
    assert (details.delay_seconds, details.affected_work_items) == (90, 1)
    snoozed = await read(tasks, task.id)
    assert at(details.next_fire_at) == at(snoozed.next_fire_at) == nominal + timedelta(seconds=90)
    assert at(snoozed.next_scheduled_for) == nominal
    tasks.clock.advance(minutes=10, seconds=89)
    await tasks.service.scheduler.step()
    assert await outcomes(tasks, task.id) == []
    tasks.clock.advance(seconds=1)
    await tasks.service.scheduler.step()
    assert await outcomes(tasks, task.id) == [(nominal, RAN)]
    # Only that one time was moved.
    assert at((await read(tasks, task.id)).next_fire_at) == nominal + TEN_MINUTES


async def test_snoozing_moves_what_is_queued_and_not_what_runs(tasks: Tasks) -> None:
    task = await tasks.create()
    running, queued = [await tasks.run_now(task.id) for _ in range(2)]
    (leased,) = await tasks.lease()
    details = await snooze(tasks, task.id, 60)
    assert (details.affected_work_items, details.HasField("next_fire_at")) == (1, False)
    assert await tasks.lease() == []
    assert await tasks.finish(leased.lease)
    tasks.clock.advance(seconds=59)
    assert await tasks.lease() == []
    tasks.clock.advance(seconds=1)
    assert [run.lease.run_id for run in await tasks.lease()] == [queued]
    assert (await tasks.run(running)).status == run_pb2.RUN_STATUS_SUCCEEDED


async def test_what_is_overdue_is_snoozed_from_now(tasks: Tasks) -> None:
    task = await every_ten_minutes(tasks)
    tasks.clock.advance(hours=2)
    details = await snooze(tasks, task.id, 600)
    assert at(details.next_fire_at) == tasks.clock.now() + TEN_MINUTES


async def test_snoozes_add_up(tasks: Tasks) -> None:
    nominal = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    for _ in range(2):
        await snooze(tasks, task.id, 604_800)
    assert at((await read(tasks, task.id)).next_fire_at) == nominal + timedelta(days=14)


async def test_only_what_goes_on_is_snoozed(tasks: Tasks) -> None:
    task = await every_ten_minutes(tasks)
    await pause(tasks, task.id)
    with pytest.raises(FailedPrecondition, match="paused") as refused:
        await by_ten_minutes(tasks, task.id)
    assert refused.value.reason == "TASK_NOT_ACTIVE"


async def test_nothing_is_snoozed_beyond_the_calendar(tasks: Tasks) -> None:
    task = await once(tasks, datetime(9999, 12, 31, tzinfo=UTC))
    with pytest.raises(InvalidArgument) as refused:
        await snooze(tasks, task.id, 604_800)
    assert [violation.field for violation in refused.value.violations] == ["delay_seconds"]


@one_engine
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"delay_seconds": 0}, "delay_seconds"),
        ({"delay_seconds": 604_801}, "delay_seconds"),
        ({"delay_seconds": -1}, "delay_seconds"),
        ({"delay_seconds": 1, "reason": "x" * 201}, "reason"),
    ],
)
async def test_a_bad_snooze_is_named(tasks: Tasks, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await tasks.tasks.SnoozeTask(pb.SnoozeTaskRequest(task_id=new_id(), **fields))
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_a_snooze_is_told_with_its_reason(tasks: Tasks) -> None:
    task = await every_ten_minutes(tasks)
    request = pb.SnoozeTaskRequest(task_id=task.id, delay_seconds=60, reason="the printer is on fire", request_id="k")
    assert "the printer is on fire" in (await tasks.tasks.SnoozeTask(request)).message
    (entry,) = await audited_changes(tasks)
    fires = at(task.next_fire_at)
    assert (entry["action"], entry["actor"], entry["resource"]) == ("task.snooze", task.created_by, f"task/{task.id}")
    assert (entry["note"], entry["request_id"]) == ("the printer is on fire", "k")
    assert entry["before"] == {"next_fire_at": fires.isoformat()}
    assert entry["after"] == {"next_fire_at": (fires + timedelta(minutes=1)).isoformat()}


async def test_a_snooze_of_runs_alone_is_told_as_well(tasks: Tasks) -> None:
    task = await tasks.create()
    await snooze(tasks, task.id, 60)
    assert await audited_changes(tasks) == []
    await tasks.run_now(task.id)
    await snooze(tasks, task.id, 60)
    (entry,) = await audited_changes(tasks)
    assert (entry["before"], entry["after"]) == ({}, {"runs": 1})


async def test_every_change_is_told_once_and_no_change_is_not(tasks: Tasks) -> None:
    task = await tasks.create(payload={"pipeline": [], "params": {"password": "hunter2"}})
    for _ in range(2):
        await pause(tasks, task.id)
    await resume(tasks, task.id)
    for _ in range(2):
        await update(tasks, task.id, title="new", payload={"pipeline": [], "params": {"password": "*******"}})
    await cancel(tasks, task.id)
    entries = await audited_changes(tasks)
    assert [entry["action"] for entry in entries] == ["task.pause", "task.resume", "task.update", "task.cancel"]
    changed = entries[2]
    assert (changed["before"]["title"], changed["after"]["title"]) == ("a task", "new")
    assert len(changed["after"]["payload"]) == 64
    assert "hunter2" not in str(entries)
    assert entries[3]["after"] == {"status": "canceled"}


@pytest.mark.parametrize("call", [pause, resume, cancel, by_ten_minutes, occurrences])
async def test_unknown_tasks(tasks: Tasks, call: Call) -> None:
    task_id = new_id()
    with pytest.raises(NotFound, match=task_id) as refused:
        await call(tasks, task_id)
    assert (refused.value.reason, refused.value.metadata) == ("TASK_NOT_FOUND", {"task_id": task_id})
    with pytest.raises(InvalidArgument) as invalid:
        await call(tasks, "7")
    assert [violation.field for violation in invalid.value.violations] == ["task_id"]


@pytest.mark.parametrize(
    ("method", "request_type", "fields", "other"),
    [
        ("PauseTask", pb.PauseTaskRequest, {}, None),
        ("ResumeTask", pb.ResumeTaskRequest, {}, None),
        ("CancelTask", pb.CancelTaskRequest, {}, None),
        ("SnoozeTask", pb.SnoozeTaskRequest, {"delay_seconds": 60}, {"delay_seconds": 61}),
        ("UpdateTask", pb.UpdateTaskRequest, {"title": "new"}, {"title": "newer"}),
        ("RunTaskNow", pb.RunTaskNowRequest, {}, {"params": {"a": 1}}),
    ],
)
async def test_a_repeated_request_has_one_effect(
    tasks: Tasks, method: str, request_type: Any, fields: dict[str, Any], other: dict[str, Any] | None
) -> None:
    task = await every_ten_minutes(tasks)
    if method == "ResumeTask":
        await pause(tasks, task.id)
    call, request = getattr(tasks.tasks, method), request_type(task_id=task.id, request_id="the key", **fields)
    first = await call(request)
    after = await read(tasks, task.id)
    tasks.clock.advance(seconds=1)
    # Done once more it would say that nothing had changed, or change it further.
    assert await call(request) == first
    assert await read(tasks, task.id) == after
    assert await tasks.count(tables.runs) == (1 if method == "RunTaskNow" else 0)
    another = request_type(task_id=task.id if other else new_id(), request_id="the key", **(other or fields))
    with pytest.raises(InvalidArgument) as refused:
        await call(another)
    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"
