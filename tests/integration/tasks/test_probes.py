"""Leases of probes: one worker at a time, and who is late is not listened to."""

import asyncio
from datetime import timedelta

from baton.tasks.v1 import probe_service_pb2 as pb

from services.chassis.structs import from_struct
from tests.integration.tasks.conditions import condition, evaluated, evaluations, lease, report, tell, waiting_until
from tests.integration.tasks.lifecycle import at, runs_of, update
from tests.integration.tasks.running import Tasks


async def test_a_probe_comes_with_all_that_a_worker_needs(tasks: Tasks) -> None:
    task = await waiting_until(
        tasks,
        "result.n > params.n",
        title="Watch",
        condition=condition(uses="echo.test", with_={"n": "${params.n}"}, timeout_seconds=1.5),
        payload={"pipeline": [{"uses": "echo.test"}], "params": {"n": 3}},
    )
    (probe,) = await lease(tasks)
    assert (probe.lease.task_id, probe.task, probe.uses, probe.expression, probe.number) == (
        task.id, "Watch", "echo.test", "result.n > params.n", 1,
    )  # fmt: skip
    assert (from_struct(getattr(probe, "with")), from_struct(probe.params)) == ({"n": "${params.n}"}, {"n": 3})
    assert (probe.timeout_seconds, probe.lasts.ToTimedelta()) == (1.5, timedelta(seconds=61.5))
    assert at(probe.leased_at) == tasks.clock.now()


async def test_workers_never_probe_the_same_task_at_once(tasks: Tasks) -> None:
    created = {(await waiting_until(tasks)).id for _ in range(12)}
    for _ in range(3):
        leased = [probe for batch in await asyncio.gather(*(lease(tasks, 4) for _ in range(8))) for probe in batch]
        # One that was passed over because somebody held it for a moment is had by asking again.
        while more := await lease(tasks, 100):
            leased += more
        assert sorted(probe.lease.task_id for probe in leased) == sorted(created)
        reports = [evaluated(probe.lease, False) for probe in leased]
        assert all(await report(tasks, *reports))
        assert await lease(tasks) == []
        tasks.clock.advance(seconds=60)


async def test_the_probe_of_a_worker_that_died_is_leased_again_with_its_number(tasks: Tasks) -> None:
    task = await waiting_until(tasks, condition=condition(timeout_seconds=10))
    (dead,) = await lease(tasks)
    tasks.clock.advance(seconds=69)
    assert await lease(tasks) == []
    tasks.clock.advance(seconds=1)
    (again,) = await lease(tasks)
    assert (again.number, again.lease.token != dead.lease.token) == (1, True)
    assert await report(tasks, evaluated(dead.lease, True), evaluated(again.lease, True)) == [False, True]
    assert [one.number for one in await evaluations(tasks, task.id)] == [1]
    assert len(await runs_of(tasks, task.id)) == 1


async def test_a_late_report_changes_nothing(tasks: Tasks) -> None:
    task = await waiting_until(tasks)
    (probe,) = await lease(tasks)
    tasks.clock.advance(seconds=91)
    assert await report(tasks, evaluated(probe.lease, True)) == [False]
    await tell(tasks, False)
    assert await report(tasks, evaluated(probe.lease, True)) == [False]
    assert [one.holds for one in await evaluations(tasks, task.id)] == [False]
    assert await runs_of(tasks, task.id) == []


async def test_a_report_that_is_repeated_counts_once(tasks: Tasks) -> None:
    task = await waiting_until(tasks)
    (probe,) = await lease(tasks)
    twice = [evaluated(probe.lease, True), evaluated(probe.lease, True)]
    assert await report(tasks, *twice) == [True, True]
    assert await report(tasks, *twice) == [False, False]
    assert len(await evaluations(tasks, task.id)) == len(await runs_of(tasks, task.id)) == 1


async def test_what_was_asked_before_a_change_is_not_listened_to(tasks: Tasks) -> None:
    task = await waiting_until(tasks)
    (probe,) = await lease(tasks)
    await update(tasks, task.id, schedule_expr="!result.up")
    (anew,) = await lease(tasks)
    assert await report(tasks, evaluated(probe.lease, True)) == [False]
    assert anew.expression == "!result.up"


async def test_a_probe_that_is_given_back_is_due_at_once(tasks: Tasks) -> None:
    task = await waiting_until(tasks)
    (probe,) = await lease(tasks)
    assert await report(tasks, pb.ProbeReport(lease=probe.lease, released=pb.ProbeReleased())) == [True]
    assert [one.number for one in await lease(tasks)] == [1]
    assert await evaluations(tasks, task.id) == []


async def test_the_time_that_a_probe_takes_does_not_add_up(tasks: Tasks) -> None:
    await waiting_until(tasks)
    (probe,) = await lease(tasks)
    tasks.clock.advance(seconds=20)
    await report(tasks, evaluated(probe.lease, False))
    tasks.clock.advance(seconds=39)
    assert await lease(tasks) == []
    tasks.clock.advance(seconds=1)
    assert len(await lease(tasks)) == 1


async def test_large_probes_come_one_at_a_time(tasks: Tasks) -> None:
    for _ in range(3):
        await waiting_until(tasks, payload={"pipeline": [], "params": {"text": "x" * 500_000}})
    assert [len(await lease(tasks)) for _ in range(4)] == [1, 1, 1, 0]
