"""Leasing runs, and keeping the leases."""

import asyncio
from datetime import UTC, timedelta
from itertools import chain
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2
from baton.tasks.v1.work_service_pb2 import Lease, LeaseRunsRequest, RenewRunsRequest
from baton.tasks.v1.work_service_pb2_grpc import WorkServiceStub

from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.chassis.structs import to_struct
from tests.integration.tasks.running import NO_TRACE, Tasks, one_engine

LEASE = timedelta(seconds=30)


async def renew(tasks: Tasks, *leases: Lease) -> list[Any]:
    """Renews leases; answers their new ends, None for the lost ones."""
    response = await tasks.work.RenewRuns(RenewRunsRequest(leases=leases))
    assert [item.run_id for item in response.leases] == [lease.run_id for lease in leases]
    return [item.expires_at.ToDatetime(UTC) if item.HasField("expires_at") else None for item in response.leases]


async def test_a_leased_run_brings_what_its_worker_needs(tasks: Tasks) -> None:
    payload = {"pipeline": [{"uses": "echo.test"}], "params": {"a": 1}}
    task = await tasks.create(title="t" * 70, payload=payload)
    (run_id,) = await tasks.queue_runs(task.id, 1)
    (leased,) = await tasks.lease()
    assert (leased.lease.run_id, leased.lease.attempt) == (run_id, 1)
    assert (leased.task_id, leased.task, leased.traceparent) == (task.id, "t" * 64, NO_TRACE)
    assert leased.created_by == task.created_by
    assert leased.payload == to_struct(payload)
    assert not leased.steps
    assert leased.expires_at.ToDatetime(UTC) == tasks.clock.now() + LEASE
    run = await tasks.run(run_id)
    assert (run.status, run.attempt) == (run_pb2.RUN_STATUS_RUNNING, 1)
    assert run.started_at.ToDatetime(UTC) == tasks.clock.now()
    assert run.trace_id == NO_TRACE[3:35]


async def test_of_runs_that_are_due_at_once_the_highest_priority_comes_first(tasks: Tasks) -> None:
    task = await tasks.create()
    by_priority = {priority: (await tasks.queue_runs(task.id, 1, priority=priority))[0] for priority in (9, 5, 1, 7, 3)}
    leased = [run.lease.run_id for _ in range(5) for run in await tasks.lease()]
    assert leased == [by_priority[priority] for priority in sorted(by_priority)]


async def test_a_run_ages_by_one_level_of_priority_a_minute(tasks: Tasks) -> None:
    task = await tasks.create()
    now = tasks.clock.now()
    waits = {(priority, minutes): now - timedelta(minutes=minutes) for priority in (9, 5, 1) for minutes in (0, 20, 10)}
    queued = [
        (
            due_at + timedelta(minutes=priority),
            (await tasks.queue_runs(task.id, 1, priority=priority, due_at=due_at))[0],
        )
        for (priority, _), due_at in waits.items()
    ]
    # A batch that is full, and one that is not.
    first, rest = await tasks.lease(limit=4), await tasks.lease(limit=100)
    assert [run.lease.run_id for run in first + rest] == [run_id for _, run_id in sorted(queued)]


async def test_nobody_waits_for_ever_behind_more_urgent_runs(tasks: Tasks) -> None:
    task = await tasks.create()
    (patient,) = await tasks.queue_runs(task.id, 1, priority=9)
    for minute in range(1, 9):
        tasks.clock.advance(minutes=1)
        await tasks.queue_runs(task.id, 1, priority=1, due_at=tasks.clock.now())
        leased = [run.lease.run_id for run in await tasks.lease()]
        assert (leased == [patient]) == (minute == 8)


async def test_a_run_is_not_leased_before_it_is_due(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 1, due_at=tasks.clock.now() + timedelta(seconds=10), priority=1)
    await tasks.queue_runs(task.id, 1, priority=9)
    assert [run.lease.attempt for run in await tasks.lease(limit=5)] == [1]
    tasks.clock.advance(seconds=9.999)
    assert await tasks.lease() == []
    tasks.clock.advance(seconds=0.001)
    assert len(await tasks.lease()) == 1


async def test_one_run_is_leased_when_nothing_else_is_said(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 2)
    response = await tasks.work.LeaseRuns(LeaseRunsRequest(worker_id=new_id()))
    assert len(response.runs) == 1


async def test_racing_claimers_get_each_run_once(tasks: Tasks) -> None:
    task = await tasks.create()
    ids = [run_id for priority in range(1, 10) for run_id in await tasks.queue_runs(task.id, 20, priority=priority)]

    async def claimer() -> list[str]:
        taken = []
        while leased := await tasks.lease(limit=7):
            taken += [run.lease.run_id for run in leased]
        return taken

    taken = await asyncio.gather(*(claimer() for _ in range(8)))
    # Nobody went home while others only looked at what was left.
    assert sorted(chain.from_iterable(taken)) == sorted(ids)


async def test_a_lease_says_who_works_on_the_run(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    assert (await tasks.run(run_id)).agent_id == ""
    agent_id, worker_id = new_id(), new_id()
    work = WorkServiceStub(tasks.channel(["runs:work"], agent_id))
    (leased,) = (await work.LeaseRuns(LeaseRunsRequest(worker_id=worker_id))).runs
    run = await tasks.run(run_id)
    assert (run.agent_id, run.lease_owner) == (agent_id, worker_id)
    assert await tasks.finish(leased.lease)
    assert (await tasks.run(run_id)).agent_id == agent_id


async def test_a_worker_gets_the_runs_of_its_role_and_no_others(tasks: Tasks) -> None:
    review, build, none = [await tasks.create(role=role) for role in ("review", "build", "")]
    queued = {task.role: (await tasks.queue_runs(task.id, 1))[0] for task in (review, build, none)}
    for role, run_id in queued.items():
        assert [run.lease.run_id for run in await tasks.lease(limit=10, role=role)] == [run_id]
    assert await tasks.lease(limit=10, role="nobody's") == []


async def test_a_renewed_lease_lasts_another_thirty_seconds(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 1)
    (leased,) = await tasks.lease()
    tasks.clock.advance(seconds=20)
    assert await renew(tasks, leased.lease) == [tasks.clock.now() + LEASE]
    # Past the first end of the lease, but not past the second.
    tasks.clock.advance(seconds=20)
    await tasks.service.reaper.step()
    assert await tasks.finish(leased.lease)


async def test_lost_leases_do_not_keep_the_others_from_being_renewed(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 2)
    held, ended = [run.lease for run in await tasks.lease(limit=2)]
    await tasks.finish(ended)
    other_token = Lease(run_id=held.run_id, attempt=1, token=new_id())
    other_attempt = Lease(run_id=held.run_id, attempt=2, token=held.token)
    unknown = Lease(run_id=new_id(), attempt=1, token=held.token)
    tasks.clock.advance(seconds=1)
    expires_at = tasks.clock.now() + LEASE
    for order in (1, -1):
        leases = [ended, other_token, held, other_attempt, unknown][::order]
        assert await renew(tasks, *leases) == [expires_at if lease is held else None for lease in leases]


async def test_a_lease_in_capitals_is_held_as_well(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 1)
    (leased,) = await tasks.lease()
    lease = Lease(run_id=leased.lease.run_id.upper(), attempt=1, token=leased.lease.token.upper())
    response = await tasks.work.RenewRuns(RenewRunsRequest(leases=[lease]))
    assert response.leases[0].HasField("expires_at")
    assert await tasks.finish(lease)


@one_engine
@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (LeaseRunsRequest(worker_id="7"), "worker_id"),
        (LeaseRunsRequest(worker_id=new_id(), limit=0), "limit"),
        (LeaseRunsRequest(worker_id=new_id(), limit=101), "limit"),
        (LeaseRunsRequest(worker_id=new_id(), wait_seconds=31), "wait_seconds"),
        (RenewRunsRequest(), "leases"),
        (RenewRunsRequest(leases=[Lease(run_id=new_id(), attempt=0, token=new_id())]), "leases[0].attempt"),
        (RenewRunsRequest(leases=[Lease(run_id=new_id(), attempt=1, token="7")]), "leases[0].token"),
    ],
)
async def test_a_bad_field_is_named(tasks: Tasks, request_message: Any, field: str) -> None:
    call = tasks.work.LeaseRuns if isinstance(request_message, LeaseRunsRequest) else tasks.work.RenewRuns
    with pytest.raises(InvalidArgument) as refused:
        await call(request_message)
    assert [violation.field for violation in refused.value.violations] == [field]
