"""What is told of conditions: stored, and fired by the rules of every nominal time."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from baton.tasks.v1 import probe_service_pb2 as pb
from baton.tasks.v1 import task_pb2, task_service_pb2

from services.chassis.errors import InvalidArgument, NotFound
from services.chassis.structs import from_struct
from services.tasks.store import tables
from tests.integration.tasks.conditions import (
    DIGEST,
    condition,
    evaluated,
    evaluations,
    explain,
    failed,
    lease,
    report,
    tell,
    waiting_until,
)
from tests.integration.tasks.lifecycle import at, cancel, outcomes, pause, resume, runs_of, update
from tests.integration.tasks.running import Tasks, one_engine
from tests.integration.tasks.work import PROMPTLY

RAN, SKIPPED, SUPPRESSED = (
    task_pb2.OCCURRENCE_OUTCOME_RAN,
    task_pb2.OCCURRENCE_OUTCOME_SKIPPED_OVERLAP,
    task_pb2.OCCURRENCE_OUTCOME_SUPPRESSED_DUPLICATE,
)


async def test_a_condition_fires_whenever_it_becomes_true(tasks: Tasks) -> None:
    task = await waiting_until(tasks)
    begun = tasks.clock.now()
    await tell(tasks, False, True, True, None, True, False, True)
    told = (await evaluations(tasks, task.id))[::-1]
    assert [one.number for one in told] == [1, 2, 3, 4, 5, 6, 7]
    assert [one.holds if one.HasField("holds") else None for one in told] == [
        False, True, True, None, True, False, True,
    ]  # fmt: skip
    assert [one.outcome if one.HasField("outcome") else None for one in told] == [
        None, RAN, None, None, None, None, RAN,
    ]  # fmt: skip
    assert [at(one.evaluated_at) - begun for one in told] == [timedelta(minutes=minute) for minute in range(7)]
    assert (told[1].excerpt, told[1].result_digest, told[1].error) == ('{"up":true}', DIGEST, "")
    assert (told[3].excerpt, told[3].result_digest, told[3].error) == ("", "", "the tool is down")
    runs = await runs_of(tasks, task.id)
    assert [run.id for run in runs] == [told[1].run_id, told[6].run_id]
    assert await outcomes(tasks, task.id) == [
        (begun + timedelta(minutes=1), RAN),
        (begun + timedelta(minutes=6), RAN),
    ]


async def test_what_is_true_at_the_first_look_fires(tasks: Tasks) -> None:
    task = await waiting_until(tasks)
    await tell(tasks, None, True)
    assert len(await runs_of(tasks, task.id)) == 1


async def test_with_a_cooldown_it_fires_again_while_it_is_true(tasks: Tasks) -> None:
    task = await waiting_until(tasks, condition=condition(60, 150))
    await tell(tasks, True, True, True, True, False, True)
    told = (await evaluations(tasks, task.id))[::-1]
    # After 180 s; and then as it becomes true anew, however short that is after.
    assert [one.HasField("outcome") for one in told] == [True, False, False, True, False, True]


async def test_a_run_sees_the_result_as_its_event(tasks: Tasks) -> None:
    task = await waiting_until(tasks, priority=2, concurrency_key="k", role="")
    (probe,) = await lease(tasks)
    await report(tasks, evaluated(probe.lease, True, {"up": True, "list": [1, None]}))
    (leased,) = await tasks.lease()
    assert from_struct(leased.event) == {"result": {"up": True, "list": [1, None]}}
    assert (leased.event_id, leased.event_topic, leased.task_id) == ("", "", task.id)
    run = await tasks.run(leased.lease.run_id)
    assert (run.priority, run.concurrency_key, run.event_id) == (2, "k", "")
    assert set(from_struct(leased.payload)) == {"pipeline"}
    assert leased.traceparent[3:35] != "0" * 32


async def test_a_firing_wakes_who_waits_for_its_role(tasks: Tasks, hints_only: None) -> None:
    await waiting_until(tasks, role="painter")
    (probe,) = await lease(tasks)
    waiting = asyncio.create_task(tasks.lease(role="painter", wait_seconds=30))
    await report(tasks, evaluated(probe.lease, True))
    assert len(await asyncio.wait_for(waiting, PROMPTLY)) == 1


async def test_a_firing_that_overlaps_or_means_the_same_has_its_outcome(tasks: Tasks) -> None:
    task = await waiting_until(tasks, overlap=task_pb2.OVERLAP_SKIP)
    await tell(tasks, True, False, True)
    (run,) = await runs_of(tasks, task.id)
    last = (await evaluations(tasks, task.id))[0]
    assert (last.outcome, last.run_id) == (SKIPPED, run.id)
    await cancel(tasks, task.id)
    same = await waiting_until(tasks, dedupe_key="d", dedupe_window_seconds=3600)
    await tell(tasks, True, False, True)
    (run,) = await runs_of(tasks, same.id)
    last = (await evaluations(tasks, same.id))[0]
    assert (last.outcome, last.run_id) == (SUPPRESSED, run.id)
    assert [outcome for _, outcome in await outcomes(tasks, same.id)] == [RAN, SUPPRESSED]


async def test_a_paused_task_is_not_probed_and_remembers_what_it_was(tasks: Tasks) -> None:
    task = await waiting_until(tasks)
    await tell(tasks, True)
    (probe,) = await lease(tasks)
    await pause(tasks, task.id)
    assert await report(tasks, evaluated(probe.lease, False)) == [False]
    tasks.clock.advance(hours=1)
    assert await lease(tasks) == []
    await resume(tasks, task.id)
    await tell(tasks, True)
    assert len(await runs_of(tasks, task.id)) == 1, "it was true before, and is"
    await tell(tasks, False)
    await pause(tasks, task.id)
    await resume(tasks, task.id)
    await tell(tasks, True)
    assert len(await runs_of(tasks, task.id)) == 2


async def test_a_canceled_task_is_not_probed(tasks: Tasks) -> None:
    task = await waiting_until(tasks)
    (probe,) = await lease(tasks)
    await cancel(tasks, task.id)
    assert await report(tasks, evaluated(probe.lease, True)) == [False]
    tasks.clock.advance(hours=1)
    assert await lease(tasks) == []
    assert await tasks.count(tables.evaluations) == await tasks.count(tables.runs) == 0


async def test_the_newest_hundred_are_kept_and_paged(tasks: Tasks) -> None:
    task = await waiting_until(tasks, condition=condition(5))
    await tell(tasks, *[False] * 103, seconds=5)
    numbers, cursor = [], ""
    while True:
        request = task_service_pb2.ListEvaluationsRequest(task_id=task.id, limit=40, cursor=cursor)
        page = await tasks.tasks.ListEvaluations(request)
        numbers += [one.number for one in page.items]
        if not page.has_more:
            break
        cursor = page.next_cursor
    assert numbers == list(range(103, 3, -1))
    assert await tasks.count(tables.evaluations) == 100


async def test_the_evaluations_of_no_task_are_none(tasks: Tasks) -> None:
    with pytest.raises(NotFound) as refused:
        await evaluations(tasks, "00000000-0000-7000-8000-000000000000")
    assert refused.value.reason == "TASK_NOT_FOUND"


@one_engine
async def test_what_cannot_be_kept_is_refused(tasks: Tasks) -> None:
    await waiting_until(tasks)
    (probe,) = await lease(tasks)
    deep: Any = 1
    for _ in range(30):
        deep = [deep]
    for result in ("x" * 262_144, deep):
        with pytest.raises(InvalidArgument) as refused:
            await report(tasks, evaluated(probe.lease, True, result))
        (violation,) = refused.value.violations
        assert violation.field == "reports[0].evaluated.result"
    with pytest.raises(InvalidArgument):
        await report(tasks, pb.ProbeReport(lease=probe.lease))
    with pytest.raises(InvalidArgument):
        await report(tasks, failed(probe.lease, ""))
    assert await tasks.count(tables.evaluations) == 0
    assert await report(tasks, evaluated(probe.lease, True, "x" * 262_142)) == [True]


async def test_explain_says_what_the_condition_was(tasks: Tasks) -> None:
    task = await waiting_until(tasks, condition=condition(60, 300))
    # A worker is there: it asks for runs, too.
    await tasks.lease()
    await tasks.service.attendance.step()
    asked_at = tasks.clock.now()
    (blocker,) = (await explain(tasks, task.id)).blockers
    assert (blocker.code, at((await explain(tasks, task.id)).next_probe_at)) == ("not_probed", asked_at)
    assert not (await explain(tasks, task.id)).HasField("last_evaluation")
    await tell(tasks, None, seconds=59)
    (blocker,) = (await explain(tasks, task.id)).blockers
    assert (blocker.code, "the tool is down" in blocker.message) == ("probe_failed", True)
    tasks.clock.advance(seconds=1)
    await tell(tasks, False, seconds=60)
    explained = await explain(tasks, task.id)
    assert ([blocker.code for blocker in explained.blockers], explained.last_evaluation.number) == (
        ["condition_false"], 2,
    )  # fmt: skip
    assert at(explained.next_probe_at) == tasks.clock.now()
    await tell(tasks, True, seconds=60)
    (leased,) = await tasks.lease()
    await tasks.finish(leased.lease)
    (blocker,) = (await explain(tasks, task.id)).blockers
    assert (blocker.code, from_struct(blocker.evidence)["until"][:10]) == ("in_cooldown", f"{asked_at:%Y-%m-%d}")
    await update(tasks, task.id, condition=condition(60, 0))
    (blocker,) = (await explain(tasks, task.id)).blockers
    assert blocker.code == "condition_unchanged"
    tasks.clock.advance(seconds=11)
    late, *_ = (await explain(tasks, task.id)).blockers
    assert (late.code, late.message) == (
        "probe_late", "the condition was to be probed 11 s ago, and no worker has asked for it",
    )  # fmt: skip
