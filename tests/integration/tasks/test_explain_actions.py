"""Each blocker's action is done as it is written, and then that blocker is gone."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from baton.tasks.v1 import task_pb2
from baton.tasks.v1.work_service_pb2 import RunCanceled, RunReport

from services.chassis.ids import new_id
from services.gateway.documentation import shipped_comments
from tests.integration.tasks.conditions import tell, waiting_until
from tests.integration.tasks.events import dispatch_all, publish, waiting_for
from tests.integration.tasks.explaining import DAILY, Somebody, abolish_zone, is_rest, miss, somebody
from tests.integration.tasks.lifecycle import completed, once, pause, resume, runs_of
from tests.integration.tasks.reporting import AWAITING, RUNNING, reporter
from tests.integration.tasks.running import Tasks

EVERY_MINUTE = {"schedule_kind": task_pb2.SCHEDULE_KIND_CRON, "schedule_expr": "* * * * *"}
# What is waited for, is final, or is mended on a machine or in another service.
NOT_REST = frozenset(
    {
        "not_due",
        "budget_exceeded",
        "retry_wait",
        "behind_same_concurrency_key",
        "cancel_requested",
        "task_canceled",
        "workers_busy",
        "scheduler_late",
        "awaiting_event",
        "not_probed",
        "probe_late",
        "condition_false",
        "condition_unchanged",
        "in_cooldown",
    }
)


@dataclass
class Stuck:
    """What does not go on, where it is explained, and what the action leaves open."""

    path: str
    choice: dict[str, Any] = field(default_factory=dict)
    afterwards: Callable[[], Awaitable[Any]] | None = None
    """What others do on account of the action."""


@pytest.fixture
async def caller(tasks: Tasks) -> AsyncIterator[Somebody]:
    async with somebody(tasks) as opened:
        yield opened


async def _paused(tasks: Tasks) -> Stuck:
    task = await tasks.create(**DAILY)
    await pause(tasks, task.id)
    return Stuck(f"/tasks/{task.id}")


async def _paused_manual(tasks: Tasks) -> Stuck:
    task = await tasks.create()
    await pause(tasks, task.id)
    return Stuck(f"/tasks/{task.id}")


async def _paused_run(tasks: Tasks) -> Stuck:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    await pause(tasks, task.id)
    return Stuck(f"/runs/{run_id}")


async def _completed(tasks: Tasks) -> Stuck:
    task = await completed(tasks)
    return Stuck(f"/tasks/{task.id}", {"schedule_kind": "cron", "schedule_expr": "0 9 * * *"})


async def _manual(tasks: Tasks) -> Stuck:
    return Stuck(f"/tasks/{(await tasks.create()).id}")


async def _abolished(tasks: Tasks) -> Stuck:
    task = await tasks.create(**DAILY)
    await abolish_zone(tasks, task.id)
    return Stuck(f"/tasks/{task.id}", {"timezone": "Europe/Chisinau"})


async def _abolished_and_due(tasks: Tasks) -> Stuck:
    task = await tasks.create(**DAILY)
    await abolish_zone(tasks, task.id)
    await miss(tasks, task)
    return Stuck(f"/tasks/{task.id}", {"timezone": "Europe/Chisinau"})


async def _without_worker(tasks: Tasks) -> Stuck:
    run_id = await tasks.run_now((await tasks.create(role="reviewer")).id)
    return Stuck(f"/runs/{run_id}", {"worker_id": new_id(), "role": "reviewer"})


async def _manual_and_queued(tasks: Tasks) -> Stuck:
    task = await tasks.create(role="reviewer")
    await tasks.run_now(task.id)

    async def has_one_run() -> None:
        assert len(await runs_of(tasks, task.id)) == 1

    return Stuck(f"/tasks/{task.id}", {"worker_id": new_id(), "role": "reviewer"}, has_one_run)


async def _key_held(tasks: Tasks) -> Stuck:
    task = await tasks.create(concurrency_key="printer")
    _, waiting = [await tasks.run_now(task.id) for _ in range(2)]
    (leased,) = await tasks.lease()

    async def stop() -> None:
        await tasks.report(RunReport(lease=leased.lease, canceled=RunCanceled()))

    return Stuck(f"/runs/{waiting}", afterwards=stop)


async def _awaiting_approval(tasks: Tasks) -> Stuck:
    return Stuck(f"/runs/{(await reporter(tasks).report(AWAITING)).id}")


async def _reported(tasks: Tasks) -> Stuck:
    return Stuck(f"/runs/{(await reporter(tasks).report(RUNNING)).id}", {"status": "succeeded"})


async def _missed_once(tasks: Tasks) -> Stuck:
    task = await once(tasks, tasks.clock.now() - timedelta(days=1), misfire=task_pb2.MISFIRE_RUN_ALL)
    await tasks.service.scheduler.step()
    return await _and_done(tasks, task)


async def _missed_daily(tasks: Tasks) -> Stuck:
    task = await tasks.create(**DAILY)
    await miss(tasks, task)
    return await _and_done(tasks, task)


async def _missed_by_the_grace(tasks: Tasks) -> Stuck:
    task = await tasks.create(misfire=task_pb2.MISFIRE_SKIP, **DAILY)
    tasks.clock.advance(seconds=task.next_fire_at.seconds - tasks.clock.now().timestamp() + 31)
    await tasks.service.scheduler.step()
    return await _and_done(tasks, task)


async def _and_done(tasks: Tasks, task: task_pb2.Task) -> Stuck:
    """The run that is made is done at once: what is gone stays gone."""

    async def work() -> None:
        (leased,) = await tasks.lease()
        await tasks.finish(leased.lease)

    return Stuck(f"/tasks/{task.id}", afterwards=work)


async def _skipped(tasks: Tasks) -> Stuck:
    task = await tasks.create(overlap=task_pb2.OVERLAP_SKIP, **EVERY_MINUTE)
    for _ in range(2):
        tasks.clock.advance(seconds=60)
        await tasks.service.scheduler.step()
    return Stuck(f"/tasks/{task.id}")


async def _suppressed(tasks: Tasks) -> Stuck:
    task = await tasks.create(dedupe_key="report", dedupe_window_seconds=600, **EVERY_MINUTE)
    await tasks.run_now(task.id)
    tasks.clock.advance(seconds=60)
    await tasks.service.scheduler.step()
    # Until then it is waited for.
    tasks.clock.advance(seconds=540)
    return Stuck(f"/tasks/{task.id}")


async def _no_event(tasks: Tasks) -> Stuck:
    task = await waiting_for(tasks, "order.*")
    return Stuck(f"/tasks/{task.id}")


async def _probe_failed(tasks: Tasks) -> Stuck:
    task = await waiting_until(tasks)
    await tell(tasks, None, seconds=1)
    return Stuck(f"/tasks/{task.id}", {"condition": {"probe": {"uses": "echo.test", "with": {"up": True}}}})


async def _probe_failed_and_late(tasks: Tasks) -> Stuck:
    stuck = await _probe_failed(tasks)
    tasks.clock.advance(hours=1)
    return stuck


async def _filtered(tasks: Tasks) -> Stuck:
    task = await waiting_for(tasks, "order.*", event_filter="event.total > 100")
    await publish(tasks, payload={"total": 50})
    return Stuck(f"/tasks/{task.id}", {"event_filter": "event.total > 10"})


async def _filter_failed(tasks: Tasks) -> Stuck:
    task = await waiting_for(tasks, "order.*", event_filter="event.total > 100")
    await publish(tasks)
    return Stuck(f"/tasks/{task.id}", {"event_filter": "!has(event.total)"})


async def _missed_event(tasks: Tasks) -> Stuck:
    task = await waiting_for(tasks, "order.*")
    await pause(tasks, task.id)
    await publish(tasks)
    await resume(tasks, task.id)
    tasks.clock.advance(milliseconds=1)
    return await _and_done(tasks, task)


async def _event_too_deep(tasks: Tasks) -> Stuck:
    task = await waiting_for(tasks, "run.succeeded")
    await tasks.run_now((await tasks.create()).id)
    while work := await tasks.lease():
        tasks.clock.advance(milliseconds=1)
        await tasks.finish(work[0].lease)
        await dispatch_all(tasks)
    return Stuck(f"/tasks/{task.id}", {"event_filter": f"event.task_id != '{task.id}'"})


async def _skipped_event(tasks: Tasks) -> Stuck:
    task = await waiting_for(tasks, "order.*", overlap=task_pb2.OVERLAP_SKIP)
    for _ in range(2):
        await publish(tasks)
    return Stuck(f"/tasks/{task.id}")


async def _suppressed_event(tasks: Tasks) -> Stuck:
    task = await waiting_for(tasks, "order.*", dedupe_key="order", dedupe_window_seconds=600)
    for _ in range(2):
        await publish(tasks)
    # Until then it is waited for.
    tasks.clock.advance(seconds=600)
    return Stuck(f"/tasks/{task.id}")


CASES = [
    ("task_paused", _paused),
    ("task_paused", _paused_manual),
    ("task_paused", _paused_run),
    ("task_completed", _completed),
    ("no_schedule", _manual),
    ("schedule_unreadable", _abolished),
    ("schedule_unreadable", _abolished_and_due),
    ("no_worker", _without_worker),
    ("no_worker", _manual_and_queued),
    ("concurrency_key_held", _key_held),
    ("awaiting_approval", _awaiting_approval),
    ("reported_from_outside", _reported),
    ("times_missed", _missed_once),
    ("times_missed", _missed_daily),
    ("times_missed", _missed_by_the_grace),
    ("overlap_skipped", _skipped),
    ("duplicate_suppressed", _suppressed),
    ("no_event", _no_event),
    ("probe_failed", _probe_failed),
    ("probe_failed", _probe_failed_and_late),
    ("event_filtered", _filtered),
    ("event_filter_failed", _filter_failed),
    ("event_missed", _missed_event),
    ("event_too_deep", _event_too_deep),
    ("overlap_skipped", _skipped_event),
    ("duplicate_suppressed", _suppressed_event),
]


@pytest.mark.parametrize(("code", "get_stuck"), CASES, ids=[get_stuck.__name__ for _, get_stuck in CASES])
async def test_what_an_action_says_removes_its_blocker(
    tasks: Tasks, caller: Somebody, code: str, get_stuck: Callable[[Tasks], Awaitable[Stuck]]
) -> None:
    stuck = await get_stuck(tasks)
    (blocker,) = [blocker for blocker in await caller.blockers(stuck.path) if blocker["code"] == code]
    await caller.do(blocker["action"], stuck.choice)
    if stuck.afterwards is not None:
        await stuck.afterwards()
    assert code not in [blocker["code"] for blocker in await caller.blockers(stuck.path)]


@pytest.mark.parametrize(("code", "get_stuck"), CASES, ids=[get_stuck.__name__ for _, get_stuck in CASES])
async def test_every_action_is_one(
    tasks: Tasks, caller: Somebody, code: str, get_stuck: Callable[[Tasks], Awaitable[Stuck]]
) -> None:
    stuck = await get_stuck(tasks)
    for blocker in await caller.blockers(stuck.path):
        action = blocker["action"]
        assert not re.search(r"\bor\b|; |, ", action), action
        assert blocker["code"] in NOT_REST or is_rest(action) or action == "start a worker: python -m services.worker"


async def test_a_task_that_is_blocked_more_than_once_is_freed_from_the_first_to_the_last(
    tasks: Tasks, caller: Somebody
) -> None:
    task = await once(tasks, tasks.clock.now() - timedelta(days=1))
    await abolish_zone(tasks, task.id)
    await pause(tasks, task.id)
    path, choices = f"/tasks/{task.id}", {"schedule_unreadable": {"timezone": "UTC", "schedule_expr": "2100-01-01"}}
    done = []
    while blockers := [blocker for blocker in await caller.blockers(path) if is_rest(blocker["action"])]:
        code = blockers[0]["code"]
        await caller.do(blockers[0]["action"], choices.get(code, {}))
        done.append(code)
    assert done == ["task_paused", "schedule_unreadable", "times_missed"]
    assert len(await runs_of(tasks, task.id)) == 1


def test_every_code_of_the_contract_is_removed_here_or_needs_more_than_a_call() -> None:
    said = shipped_comments()["baton.tasks.v1.Blocker.code"]
    assert set(re.findall(r"`([a-z_]+)`", said)) == {code for code, _ in CASES} | NOT_REST
