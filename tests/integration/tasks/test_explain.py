"""Why a run is not under way, and why a task has not fired."""

from datetime import timedelta
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2, task_pb2
from baton.tasks.v1.run_service_pb2 import CancelRunRequest, CreateRunsRequest, ExplainRunRequest, NewRun
from baton.tasks.v1.task_service_pb2 import (
    CancelTaskRequest,
    ExplainTaskRequest,
    PauseTaskRequest,
    ResumeTaskRequest,
    RunTaskNowRequest,
    SnoozeTaskRequest,
)
from baton.tasks.v1.work_service_pb2 import RunFailed, RunReport

from services.chassis.clock import instant_text
from services.chassis.errors import NotFound
from services.chassis.ids import new_id
from services.chassis.structs import from_struct
from services.chassis.timestamps import from_timestamp, to_timestamp
from tests.integration.tasks.explaining import DAILY, abolish_zone, miss
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.work import failure


async def _run(tasks: Tasks, run_id: str) -> tuple[list[Any], str]:
    response = await tasks.runs.ExplainRun(ExplainRunRequest(run_id=run_id))
    return list(response.blockers), response.summary


async def _task(tasks: Tasks, task_id: str) -> Any:
    return await tasks.tasks.ExplainTask(ExplainTaskRequest(task_id=task_id))


async def _lease(tasks: Tasks, **fields: Any) -> list[Any]:
    """Leases a run as a new worker, who is then known to be there."""
    leased = await tasks.lease(**fields)
    await tasks.service.attendance.step()
    return leased


def _actions(blockers: Any) -> list[str]:
    return [blocker.action for blocker in blockers]


def _codes(blockers: Any) -> list[str]:
    return [blocker.code for blocker in blockers]


async def test_without_a_worker_that_is_what_a_run_waits_for(tasks: Tasks) -> None:
    run_id = await tasks.run_now((await tasks.create(role="reviewer")).id)
    (blocker,), summary = await _run(tasks, run_id)
    assert blocker.code == "no_worker"
    assert from_struct(blocker.evidence) == {"role": "reviewer", "last_seen_at": None}
    assert "POST /runs:lease" in blocker.action
    assert summary == blocker.message
    await _lease(tasks, role="builder")
    assert _codes((await _run(tasks, run_id))[0]) == ["no_worker"], "a worker of another role is none"


async def test_a_worker_that_was_seen_lately_counts_and_one_that_is_gone_does_not(tasks: Tasks) -> None:
    await _lease(tasks)
    run_id = await tasks.run_now((await tasks.create()).id)
    assert await _run(tasks, run_id) == ([], "the run is about to be leased")
    tasks.clock.advance(seconds=61)
    (blocker,), _ = await _run(tasks, run_id)
    assert blocker.code == "no_worker"
    assert from_struct(blocker.evidence)["last_seen_at"] is not None


async def test_a_worker_that_has_no_room_does_not_ask_and_is_there_all_the_same(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.run_now(task.id)
    await tasks.lease()
    waiting = await tasks.run_now(task.id)
    blockers, _ = await _run(tasks, waiting)
    assert "no_worker" not in _codes(blockers)


async def test_a_run_under_way_is_not_blocked(tasks: Tasks) -> None:
    run_id = await tasks.run_now((await tasks.create()).id)
    await _lease(tasks)
    blockers, summary = await _run(tasks, run_id)
    assert blockers == []
    assert "attempt 1" in summary


async def test_a_run_that_was_called_off_under_way_says_so(tasks: Tasks) -> None:
    run_id = await tasks.run_now((await tasks.create()).id)
    await _lease(tasks)
    await tasks.runs.CancelRun(CancelRunRequest(run_id=run_id))
    assert _codes((await _run(tasks, run_id))[0]) == ["cancel_requested"]


async def test_a_retry_says_until_when_it_waits_and_after_what(tasks: Tasks) -> None:
    task = await tasks.create(max_retries=2, backoff_strategy=task_pb2.BACKOFF_STRATEGY_FIXED)
    run_id = await tasks.run_now(task.id)
    (leased,) = await _lease(tasks)
    await tasks.report(RunReport(lease=leased.lease, failed=RunFailed(error=failure("connection refused"))))
    (blocker,), _ = await _run(tasks, run_id)
    assert blocker.code == "retry_wait"
    evidence = from_struct(blocker.evidence)
    assert (evidence["retry"], evidence["max_retries"]) == (1, 2)
    assert evidence["error"]["message"] == "connection refused"
    run = await tasks.run(run_id)
    assert evidence["due_at"] == from_timestamp(run.due_at).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def test_a_key_that_is_held_names_its_holder_and_until_when(tasks: Tasks) -> None:
    task = await tasks.create(concurrency_key="printer")
    holder, waiting, behind = [await tasks.run_now(task.id) for _ in range(3)]
    await _lease(tasks)
    for run_id in (waiting, behind):
        (blocker,), _ = await _run(tasks, run_id)
        assert blocker.code == "concurrency_key_held"
        evidence = from_struct(blocker.evidence)
        assert (evidence["run_id"], evidence["concurrency_key"]) == (holder, "printer")
        assert evidence["lease_expires_at"]
        assert f"/runs/{holder}/cancel" in blocker.action


async def test_a_line_that_nobody_has_begun_names_who_is_first(tasks: Tasks) -> None:
    await _lease(tasks)
    task = await tasks.create(concurrency_key="printer")
    first, second = [await tasks.run_now(task.id) for _ in range(2)]
    assert _codes((await _run(tasks, first))[0]) == []
    (blocker,), _ = await _run(tasks, second)
    assert (blocker.code, from_struct(blocker.evidence)["run_id"]) == ("behind_same_concurrency_key", first)


async def test_busy_workers_are_told_with_how_many_come_first(tasks: Tasks) -> None:
    await _lease(tasks)
    task = await tasks.create()
    *_, last = [await tasks.run_now(task.id) for _ in range(4)]
    tasks.clock.advance(seconds=5)
    (blocker,), _ = await _run(tasks, last)
    assert (blocker.code, from_struct(blocker.evidence)["runs_ahead"]) == ("workers_busy", 3)


async def test_blockers_are_told_in_the_order_to_remove_them_in(tasks: Tasks) -> None:
    task = await tasks.create(concurrency_key="k", role="reviewer", **DAILY)
    await tasks.run_now(task.id)
    await _lease(tasks, role="reviewer")
    run_id = await tasks.run_now(task.id)
    await tasks.tasks.SnoozeTask(SnoozeTaskRequest(task_id=task.id, delay_seconds=600))
    await tasks.tasks.PauseTask(PauseTaskRequest(task_id=task.id))
    tasks.clock.advance(seconds=61)
    blockers, summary = await _run(tasks, run_id)
    assert _codes(blockers) == ["task_paused", "not_due", "no_worker", "concurrency_key_held"]
    assert summary == blockers[0].message
    assert blockers[0].action == f"POST /tasks/{task.id}/resume"


async def test_a_finished_run_says_how_it_ended(tasks: Tasks) -> None:
    run_id = await tasks.run_now((await tasks.create(max_retries=0)).id)
    (leased,) = await _lease(tasks)
    await tasks.report(RunReport(lease=leased.lease, failed=RunFailed(error=failure("no such file"))))
    response = await tasks.runs.ExplainRun(ExplainRunRequest(run_id=run_id))
    assert response.status == run_pb2.RUN_STATUS_FAILED
    assert list(response.blockers) == []
    assert response.summary == "the run has failed: no such file"


async def test_an_active_schedule_says_when_it_fires(tasks: Tasks) -> None:
    task = await tasks.create(**DAILY)
    explained = await _task(tasks, task.id)
    assert _codes(explained.blockers) == ["not_due"]
    assert explained.next_fire_at == task.next_fire_at
    assert not explained.HasField("last_occurrence")
    assert not explained.HasField("live_run_id")
    await tasks.tasks.SnoozeTask(SnoozeTaskRequest(task_id=task.id, delay_seconds=60))
    assert "snoozed" in (await _task(tasks, task.id)).summary


@pytest.mark.parametrize(
    ("end", "code"),
    [(PauseTaskRequest, "task_paused"), (CancelTaskRequest, "task_canceled")],
    ids=["paused", "canceled"],
)
async def test_a_task_that_was_stopped_says_so(tasks: Tasks, end: Any, code: str) -> None:
    task = await tasks.create(**DAILY)
    method = tasks.tasks.PauseTask if end is PauseTaskRequest else tasks.tasks.CancelTask
    await method(end(task_id=task.id))
    assert _codes((await _task(tasks, task.id)).blockers)[0] == code


async def test_a_manual_task_has_no_schedule(tasks: Tasks) -> None:
    task = await tasks.create()
    (blocker,) = (await _task(tasks, task.id)).blockers
    assert (blocker.code, blocker.action) == ("no_schedule", f"POST /tasks/{task.id}/run_now")


async def test_a_manual_task_whose_run_waits_says_what_for_and_nothing_else(tasks: Tasks) -> None:
    task = await tasks.create(role="reviewer")
    await tasks.run_now(task.id)
    assert _codes((await _task(tasks, task.id)).blockers) == ["no_worker"]


async def test_a_paused_manual_task_is_to_be_resumed_and_then_to_be_run(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.tasks.PauseTask(PauseTaskRequest(task_id=task.id))
    assert _actions((await _task(tasks, task.id)).blockers) == [f"POST /tasks/{task.id}/resume"]
    await tasks.tasks.ResumeTask(ResumeTaskRequest(task_id=task.id))
    assert _actions((await _task(tasks, task.id)).blockers) == [f"POST /tasks/{task.id}/run_now"]
    await _lease(tasks)
    await tasks.run_now(task.id)
    assert list((await _task(tasks, task.id)).blockers) == []


async def test_a_paused_task_with_a_queued_run_says_so_once(tasks: Tasks) -> None:
    task = await tasks.create(**DAILY)
    await _lease(tasks)
    await tasks.run_now(task.id)
    await tasks.tasks.PauseTask(PauseTaskRequest(task_id=task.id))
    assert _codes((await _task(tasks, task.id)).blockers) == ["task_paused"]


async def test_a_paused_task_whose_run_is_under_way_says_so(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.run_now(task.id)
    await _lease(tasks)
    await tasks.tasks.PauseTask(PauseTaskRequest(task_id=task.id))
    assert _codes((await _task(tasks, task.id)).blockers) == ["task_paused"]


async def test_a_manual_task_whose_run_is_not_due_waits_for_that_and_for_nothing_else(tasks: Tasks) -> None:
    task = await tasks.create()
    await _lease(tasks)
    due_at = to_timestamp(tasks.clock.now() + timedelta(hours=1))
    await tasks.runs.CreateRuns(CreateRunsRequest(runs=[NewRun(task_id=task.id, due_at=due_at)]))
    (blocker,) = (await _task(tasks, task.id)).blockers
    assert (blocker.code, blocker.action) == ("not_due", "")


async def test_a_task_whose_run_is_under_way_says_how_far_it_is(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.run_now(task.id)
    await _lease(tasks)
    explained = await _task(tasks, task.id)
    assert (list(explained.blockers), "attempt 1" in explained.summary) == ([], True)


async def test_what_waits_comes_before_what_is_to_fire(tasks: Tasks) -> None:
    task = await tasks.create(**DAILY)
    await tasks.run_now(task.id)
    assert _codes((await _task(tasks, task.id)).blockers) == ["no_worker", "not_due"]


async def test_a_schedule_that_became_unreadable_says_so_before_and_after_it_was_to_fire(tasks: Tasks) -> None:
    task = await tasks.create(**DAILY)
    await abolish_zone(tasks, task.id)
    assert _codes((await _task(tasks, task.id)).blockers) == ["schedule_unreadable"]
    tasks.clock.advance(days=1)
    await tasks.service.scheduler.step()
    (unreadable, missed) = (await _task(tasks, task.id)).blockers
    assert (unreadable.code, missed.code) == ("schedule_unreadable", "times_missed")
    assert from_struct(unreadable.evidence)["timezone"] == "Europe/Atlantis"


async def test_a_time_that_was_missed_is_not_made_up_for_by_an_older_run(tasks: Tasks) -> None:
    task = await tasks.create(**DAILY)
    await _lease(tasks)
    await tasks.run_now(task.id)
    await miss(tasks, task)
    await _lease(tasks)
    assert _codes((await _task(tasks, task.id)).blockers) == ["not_due", "times_missed"]


async def test_a_time_that_was_made_up_for_stays_so_when_the_run_has_ended(tasks: Tasks) -> None:
    task = await tasks.create(**DAILY)
    await miss(tasks, task)
    await tasks.run_now(task.id)
    (leased,) = await _lease(tasks)
    await tasks.finish(leased.lease)
    assert _codes((await _task(tasks, task.id)).blockers) == ["not_due"]


async def test_a_key_whose_holder_was_called_off_is_waited_for(tasks: Tasks) -> None:
    task = await tasks.create(concurrency_key="printer")
    holder, waiting = [await tasks.run_now(task.id) for _ in range(2)]
    await _lease(tasks)
    await tasks.runs.CancelRun(CancelRunRequest(run_id=holder))
    (blocker,), _ = await _run(tasks, waiting)
    assert (blocker.code, blocker.action) == ("concurrency_key_held", "")
    assert "was called off" in blocker.message


async def test_what_would_keep_run_now_from_making_a_run_comes_before_it(tasks: Tasks) -> None:
    task = await tasks.create(dedupe_key="report", dedupe_window_seconds=600)
    await tasks.run_now(task.id)
    (leased,) = await _lease(tasks)
    await tasks.finish(leased.lease)
    tasks.clock.advance(seconds=60)
    duplicate, manual = (await _task(tasks, task.id)).blockers
    assert (duplicate.code, manual.code) == ("duplicate_suppressed", "no_schedule")
    assert duplicate.action == "", "it passes by itself"
    tasks.clock.advance(seconds=540)
    assert _codes((await _task(tasks, task.id)).blockers) == ["no_schedule"], "the window is over"


async def test_of_runs_that_are_equal_the_older_one_comes_first(tasks: Tasks) -> None:
    await _lease(tasks)
    task = await tasks.create()
    runs = [await tasks.run_now(task.id) for _ in range(3)]
    ahead = [[from_struct(blocker.evidence)["runs_ahead"] for blocker in (await _run(tasks, run))[0]] for run in runs]
    assert ahead == [[], [1], [2]]


async def test_a_time_that_was_missed_is_made_up_for_by_hand(tasks: Tasks) -> None:
    long_ago = (tasks.clock.now() - timedelta(days=1)).isoformat()
    task = await tasks.create(
        schedule_kind=task_pb2.SCHEDULE_KIND_ONCE, schedule_expr=long_ago, misfire=task_pb2.MISFIRE_RUN_ALL
    )
    await tasks.service.scheduler.step()
    blockers = (await _task(tasks, task.id)).blockers
    assert _codes(blockers) == ["task_completed", "times_missed"]
    assert _actions(blockers) == [f"PUT /tasks/{task.id} with a new schedule", f"POST /tasks/{task.id}/run_now"]
    await _lease(tasks)
    await tasks.run_now(task.id)
    assert _codes((await _task(tasks, task.id)).blockers) == ["task_completed"]


async def test_a_schedule_that_is_over_says_so_and_what_to_do(tasks: Tasks) -> None:
    soon = tasks.clock.now()
    once = {"schedule_kind": task_pb2.SCHEDULE_KIND_ONCE, "schedule_expr": soon.isoformat()}
    task = await tasks.create(**once)
    await tasks.service.scheduler.step()
    explained = await _task(tasks, task.id)
    assert _codes(explained.blockers) == ["no_worker", "task_completed"], "what its run waits for comes first"
    assert explained.last_occurrence.outcome == task_pb2.OCCURRENCE_OUTCOME_RAN
    assert explained.live_run_id == explained.last_occurrence.run_id


async def test_a_schedule_that_nobody_looks_at_is_late(tasks: Tasks) -> None:
    task = await tasks.create(**DAILY)
    tasks.clock.advance(days=1, seconds=6)
    (blocker,) = (await _task(tasks, task.id)).blockers
    assert blocker.code == "scheduler_late"
    assert from_struct(blocker.evidence)["late_seconds"] >= 6


async def test_the_last_time_that_made_no_run_says_why(tasks: Tasks) -> None:
    every_minute = {"schedule_kind": task_pb2.SCHEDULE_KIND_CRON, "schedule_expr": "* * * * *"}
    task = await tasks.create(overlap=task_pb2.OVERLAP_SKIP, **every_minute)
    for _ in range(2):
        tasks.clock.advance(seconds=60)
        await tasks.service.scheduler.step()
    explained = await _task(tasks, task.id)
    assert "overlap_skipped" in _codes(explained.blockers)
    (skipped,) = [blocker for blocker in explained.blockers if blocker.code == "overlap_skipped"]
    assert from_struct(skipped.evidence)["run_id"] == explained.live_run_id


async def test_a_suppressed_time_names_the_run_that_stands_for_it(tasks: Tasks) -> None:
    every_minute = {"schedule_kind": task_pb2.SCHEDULE_KIND_CRON, "schedule_expr": "* * * * *"}
    task = await tasks.create(dedupe_key="report", dedupe_window_seconds=600, **every_minute)
    response = await tasks.tasks.RunTaskNow(RunTaskNowRequest(task_id=task.id))
    tasks.clock.advance(seconds=60)
    await tasks.service.scheduler.step()
    (suppressed,) = [
        blocker for blocker in (await _task(tasks, task.id)).blockers if blocker.code == "duplicate_suppressed"
    ]
    evidence = from_struct(suppressed.evidence)
    assert (evidence["run_id"], suppressed.action) == (response.details.run_id, "")
    assert evidence["until"] == instant_text(tasks.clock.now() + timedelta(seconds=540))


async def test_what_does_not_exist_is_not_found(tasks: Tasks) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        await _run(tasks, new_id())
    with pytest.raises(NotFound, match="does not exist"):
        await _task(tasks, new_id())
