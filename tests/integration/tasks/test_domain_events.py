"""What Baton itself publishes, and the tasks that wait for it."""

import asyncio
from typing import Any

import pytest
from baton.tasks.v1 import event_pb2
from baton.tasks.v1.run_service_pb2 import CancelRunRequest, RetryRunRequest
from baton.tasks.v1.task_pb2 import OVERLAP_SKIP
from baton.tasks.v1.work_service_pb2 import LeasedRun, RunCanceled, RunFailed, RunReport

from services.chassis.ids import new_id
from services.chassis.structs import from_struct
from services.tasks.models.event import MAX_DEPTH
from services.tasks.store import tables
from tests.integration.tasks.events import (
    RAN,
    TOO_DEEP,
    dispatch_all,
    event_of,
    events_of,
    hint_for_the_dispatcher,
    outcomes_of,
    publish,
    replay,
    waiting_for,
)
from tests.integration.tasks.lifecycle import PAUSED, cancel, once, pause, resume, runs_of, snooze, update
from tests.integration.tasks.reporting import AWAITING, FAILED, RUNNING, approver, reporter
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.work import failure


async def do(tasks: Tasks, **fields: Any) -> LeasedRun:
    """Leases a run, and ends it: as succeeded unless `fields` say otherwise."""
    (leased,) = await tasks.lease()
    if fields:
        assert await tasks.report(RunReport(lease=leased.lease, **fields)) == [True]
    else:
        assert await tasks.finish(leased.lease)
    return leased


async def payloads(tasks: Tasks, topic: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Topic and payload of the events that there are, oldest first."""
    found = [(await event_of(tasks, event.id)).event for event in await events_of(tasks, topic=topic)]
    return [(event.topic, from_struct(event.payload)) for event in found]


async def test_the_end_of_a_run_makes_a_task_run_that_waits_for_it(tasks: Tasks) -> None:
    listener = await waiting_for(tasks, "run.succeeded", role="listener")
    task = await tasks.create(title="Nightly")
    await tasks.run_now(task.id)
    done = await do(tasks)
    await dispatch_all(tasks)
    (run,) = await runs_of(tasks, listener.id)
    (leased,) = await tasks.lease(role="listener")
    assert (leased.lease.run_id, leased.event_topic, leased.event_id) == (run.id, "run.succeeded", run.event_id)
    assert from_struct(leased.event) == {
        "run_id": done.lease.run_id, "task_id": task.id, "task": "Nightly", "status": "succeeded", "attempt": 1,
        "batch_id": "", "role": "", "created_by": task.created_by, "reported": False, "retry_of": None,
        "error_class": None, "step_id": None,
    }  # fmt: skip
    event = (await event_of(tasks, run.event_id)).event
    assert (event.origin, event.source_agent_id, event.published_by) == (event_pb2.EVENT_ORIGIN_BATON, "", "")
    assert (event.depth, event.matched_tasks) == (1, 1)


async def test_nothing_is_stored_that_nobody_waits_for(tasks: Tasks) -> None:
    await waiting_for(tasks, "run.failed")
    await waiting_for(tasks, "**")
    await waiting_for(tasks, "*.succeeded")
    gone = await waiting_for(tasks, "run.*")
    await cancel(tasks, gone.id)
    await tasks.run_now((await tasks.create()).id)
    await do(tasks)
    assert await tasks.count(tables.events) == 0


@pytest.mark.parametrize("pattern", ["run.failed", "run.*", "run.**"])
async def test_a_failure_is_told_by_its_class_and_not_in_its_words(tasks: Tasks, pattern: str) -> None:
    await waiting_for(tasks, pattern, event_filter="event.error_class == 'tool'", role="listener")
    await tasks.run_now((await tasks.create(max_retries=1)).id)
    error = failure("the password is wrong")
    await do(tasks, failed=RunFailed(error=error))
    assert await tasks.count(tables.events) == 0, "it will be tried again"
    tasks.clock.advance(seconds=5)
    await do(tasks, failed=RunFailed(error=error))
    ((topic, told),) = await payloads(tasks)
    assert (topic, told["status"], told["error_class"], told["step_id"], told["attempt"]) == (
        "run.failed", "failed", "tool", "step_1", 2,
    )  # fmt: skip
    assert "password" not in repr(told)


async def test_what_is_called_off_is_told(tasks: Tasks) -> None:
    await waiting_for(tasks, "run.canceled")
    task = await tasks.create()
    queued, running = [await tasks.run_now(task.id) for _ in range(2)]
    (leased,) = await tasks.lease()
    first, second = sorted([queued, running], key=lambda run_id: run_id == leased.lease.run_id)
    await tasks.runs.CancelRun(CancelRunRequest(run_id=first))
    tasks.clock.advance(milliseconds=1)
    await tasks.runs.CancelRun(CancelRunRequest(run_id=second))
    assert await tasks.count(tables.events) == 1, "the other one is still under way"
    await tasks.report(RunReport(lease=leased.lease, canceled=RunCanceled()))
    assert [(topic, told["run_id"]) for topic, told in await payloads(tasks)] == [
        ("run.canceled", first), ("run.canceled", second),
    ]  # fmt: skip


async def test_a_run_that_the_reaper_ends_is_told(tasks: Tasks) -> None:
    await waiting_for(tasks, "run.failed", role="listener")
    await tasks.run_now((await tasks.create()).id)
    for _ in range(3):
        assert await tasks.lease()
        tasks.clock.advance(seconds=31)
        await tasks.service.reaper.step()
    ((_, told),) = await payloads(tasks)
    assert told["error_class"] == "poison"


async def test_reported_runs_are_told_of_too(tasks: Tasks) -> None:
    await waiting_for(tasks, "run.*", role="listener")
    one = reporter(tasks)
    run = await one.report(RUNNING)
    assert await tasks.count(tables.events) == 0
    tasks.clock.advance(seconds=1)
    await one.patch(run.id, log_excerpt="so far")
    await one.patch(run.id, status=AWAITING)
    tasks.clock.advance(seconds=1)
    await approver(tasks).approve(run.id)
    tasks.clock.advance(seconds=1)
    ended = await one.report(FAILED)
    assert [(topic, told["run_id"], told["status"], told["reported"]) for topic, told in await payloads(tasks)] == [
        ("run.awaiting_approval", run.id, "awaiting_approval", True),
        ("run.succeeded", run.id, "succeeded", True),
        ("run.failed", ended.id, "failed", True),
    ]


async def test_what_becomes_of_tasks_is_told(tasks: Tasks) -> None:
    listener = await waiting_for(tasks, "task.*", role="listener")
    await waiting_for(tasks, "task.created", role="listener")
    tasks.clock.advance(seconds=1)
    task = await tasks.create(title="Nightly", role="builder")
    for change in (
        lambda: update(tasks, task.id, title="Daily", priority=2),
        lambda: update(tasks, task.id, title="Daily"),
        lambda: snooze(tasks, task.id, 60),
        lambda: pause(tasks, task.id),
        lambda: pause(tasks, task.id),
        lambda: resume(tasks, task.id),
        lambda: update(tasks, task.id, status=PAUSED),
        lambda: cancel(tasks, task.id),
    ):
        tasks.clock.advance(seconds=1)
        await change()
    told = [(topic, said) for topic, said in await payloads(tasks) if said["task_id"] == task.id]
    assert sorted([(topic, said["changed"]) for topic, said in told[:2]]) == [
        ("task.created", []), ("task.updated", ["title", "priority"]),
    ]  # fmt: skip
    assert sorted(topic for topic, _ in told[2:]) == sorted(
        ["task.paused", "task.resumed", "task.updated", "task.paused", "task.canceled"]
    )
    assert told[0][1] == {
        "task_id": task.id, "title": "Nightly", "status": "active", "schedule_kind": "manual", "role": "builder",
        "created_by": task.created_by, "changed_by": task.created_by, "changed": [],
    }  # fmt: skip
    await dispatch_all(tasks)
    assert len(await outcomes_of(tasks, listener.id)) >= len(told)


async def test_a_schedule_that_has_run_out_is_told(tasks: Tasks) -> None:
    await waiting_for(tasks, "task.completed")
    task = await once(tasks, tasks.clock.now())
    await tasks.service.scheduler.step()
    ((topic, told),) = await payloads(tasks)
    assert (topic, told["task_id"], told["status"]) == ("task.completed", task.id, "completed")


async def test_a_loop_is_cut_by_depth(tasks: Tasks) -> None:
    """A task that is started by the end of any run is started by the ends of its own."""
    listener = await waiting_for(tasks, "run.succeeded")
    await tasks.run_now((await tasks.create()).id)
    depths = []
    for _ in range(MAX_DEPTH + 1):
        tasks.clock.advance(milliseconds=1)
        await do(tasks)
        depths.append((await events_of(tasks))[-1].depth)
        await dispatch_all(tasks)
    assert depths == list(range(1, MAX_DEPTH + 2))
    assert await tasks.lease() == []
    last = (await events_of(tasks))[-1]
    (delivery,) = (await event_of(tasks, last.id)).deliveries
    assert (delivery.outcome, delivery.run_id) == (TOO_DEEP, "")
    assert delivery.reason == "more than 8 events followed from one another: a loop is cut here"
    assert len(await runs_of(tasks, listener.id)) == MAX_DEPTH


async def test_an_event_from_outside_begins_at_the_surface(tasks: Tasks) -> None:
    await waiting_for(tasks, "order.*")
    await waiting_for(tasks, "run.succeeded", role="listener")
    await publish(tasks)
    tasks.clock.advance(milliseconds=1)  # of one instant, ids have no order
    await do(tasks)
    assert [event.depth for event in await events_of(tasks)] == [0, 1]


async def test_a_retry_is_as_deep_as_what_it_repeats(tasks: Tasks) -> None:
    listener = await waiting_for(tasks, "run.succeeded", max_retries=0)
    await waiting_for(tasks, "run.failed", role="nobody")
    await tasks.run_now((await tasks.create()).id)
    await do(tasks)
    await dispatch_all(tasks)
    failed = await do(tasks, failed=RunFailed(error=failure()))
    await tasks.runs.RetryRun(RetryRunRequest(run_id=failed.lease.run_id))
    tasks.clock.advance(milliseconds=1)
    await do(tasks)
    assert (await events_of(tasks))[-1].depth == 2, listener.id


async def test_overlap_and_pause_hold_for_domain_events_too(tasks: Tasks) -> None:
    listener = await waiting_for(tasks, "run.succeeded", overlap=OVERLAP_SKIP, role="listener")
    for _ in range(2):
        await tasks.run_now((await tasks.create()).id)
        tasks.clock.advance(milliseconds=1)
        await do(tasks)
    await dispatch_all(tasks)
    await pause(tasks, listener.id)
    await tasks.run_now((await tasks.create()).id)
    tasks.clock.advance(milliseconds=1)
    await do(tasks)
    await dispatch_all(tasks)
    assert await outcomes_of(tasks, listener.id) == ["ran", "skipped_overlap", "paused"]


async def test_a_domain_event_is_published_anew_like_any_other(tasks: Tasks) -> None:
    await waiting_for(tasks, "run.succeeded", role="listener")
    await tasks.run_now((await tasks.create()).id)
    await do(tasks)
    await dispatch_all(tasks)
    (event,) = await events_of(tasks)
    anew = await replay(tasks, event.id)
    assert ([delivery.outcome for delivery in anew.deliveries], anew.topic) == ([RAN], "run.succeeded")
    read = (await event_of(tasks, anew.event_id)).event
    assert (read.origin, read.depth, read.published_by != "") == (event_pb2.EVENT_ORIGIN_BATON, 1, True)


async def test_no_end_is_lost_for_a_task_that_was_there_before(tasks: Tasks) -> None:
    """Whatever races with its creation: once a task was answered, it hears of every run that ends."""
    task = await tasks.create()
    for _ in range(5):
        for _ in range(4):
            await tasks.run_now(task.id)
        leased = await tasks.lease(limit=4)
        role = new_id()[:8]

        async def create_then_finish(role: str = role, leased: list[LeasedRun] = leased) -> str:
            listener = await waiting_for(tasks, "run.succeeded", role=role)
            await asyncio.gather(*(tasks.finish(run.lease) for run in leased[2:]))
            return listener.id

        listener_id, *_ = await asyncio.gather(create_then_finish(), *(tasks.finish(run.lease) for run in leased[:2]))
        await dispatch_all(tasks)
        heard = {from_struct(run.event)["run_id"] for run in await tasks.lease(limit=10, role=role)}
        assert {run.lease.run_id for run in leased[2:]} <= heard
        await cancel(tasks, listener_id)


async def test_the_dispatcher_hears_of_a_run_that_ends(tasks: Tasks) -> None:
    await waiting_for(tasks, "run.succeeded", role="listener")
    await tasks.run_now((await tasks.create()).id)
    (leased,) = await tasks.lease()
    async with hint_for_the_dispatcher(tasks):
        await tasks.finish(leased.lease)


async def test_questions_about_reported_runs_are_told_like_others(tasks: Tasks) -> None:
    await waiting_for(tasks, "approval.*")
    script = reporter(tasks)
    run, other = await script.report(AWAITING), await script.report(AWAITING)
    await approver(tasks).approve(run.id)
    await approver(tasks).reject(other.id)
    told = [(topic, payload["run_id"], payload["decided_by"] is None) for topic, payload in await payloads(tasks)]
    # All at one time, so in no order.
    assert sorted(told) == sorted(
        [
            ("approval.requested", run.id, True),
            ("approval.requested", other.id, True),
            ("approval.approved", run.id, False),
            ("approval.rejected", other.id, False),
        ]
    )
    assert {payload["created_by"] for _, payload in await payloads(tasks)} == {script.id}
