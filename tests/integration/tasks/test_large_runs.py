"""Leasing runs that are so large that few of them fit into one answer."""

from datetime import UTC
from typing import Any

from baton.tasks.v1 import run_pb2
from baton.tasks.v1.work_service_pb2 import LeaseRunsRequest, RunReport
from baton.tasks.v1.work_service_pb2_grpc import WorkServiceStub
from sqlalchemy import func, select

from services.chassis.ids import new_id
from services.tasks.operations.work import lease_runs
from services.tasks.store import tables
from tests.integration.tasks.running import Tasks

MIB = 1024 * 1024


def payload(characters: int) -> dict[str, Any]:
    return {"pipeline": [], "params": {"text": "x" * characters}}


async def test_an_answer_has_four_mebibytes_and_the_next_ones_bring_the_rest(tasks: Tasks) -> None:
    task = await tasks.create()
    run_ids = await tasks.queue_runs(task.id, 20, payload=payload(MIB - 100))
    leased = []
    while batch := await tasks.lease(limit=100):
        assert sum(run.ByteSize() for run in batch) <= 4 * MIB
        leased += batch
    assert [run.lease.run_id for run in leased] == run_ids
    # That a run was left for later does not count as an attempt.
    assert {run.lease.attempt for run in leased} == {1}


async def test_a_run_that_is_larger_comes_alone(tasks: Tasks) -> None:
    # As large as the message of a payload of 1 MiB can be: a small number takes 11 bytes there instead of 2.
    task = await tasks.create()
    large = await tasks.queue_runs(task.id, 1, payload=payload(MIB * 11 // 2))
    small = await tasks.queue_runs(task.id, 1)
    first, rest = await tasks.lease(limit=10), await tasks.lease(limit=10)
    assert [[run.lease.run_id for run in answer] for answer in (first, rest)] == [large, small]
    assert first[0].ByteSize() > 4 * MIB


async def test_a_run_that_is_left_behind_stays_as_it_was(tasks: Tasks) -> None:
    task = await tasks.create()
    for priority in (1, 2, 3):
        await tasks.queue_runs(task.id, 1, payload=payload(3 * MIB), priority=priority)
    # Two were begun before, and given back.
    begun = [(await tasks.lease())[0] for _ in range(2)]
    for run in begun:
        await tasks.report(RunReport(lease=run.lease, released={}))
    began_at = tasks.clock.now()
    tasks.clock.advance(minutes=1)
    before = await tasks.run(begun[1].lease.run_id)
    other = WorkServiceStub(tasks.channel(["runs:work"]))
    (leased,) = (await other.LeaseRuns(LeaseRunsRequest(worker_id=new_id(), limit=100))).runs
    assert (leased.lease.run_id, leased.lease.attempt) == (begun[0].lease.run_id, 2)
    left = await tasks.run(begun[1].lease.run_id)
    assert (left.status, left.attempt) == (run_pb2.RUN_STATUS_QUEUED, 1)
    assert left.agent_id == before.agent_id != (await tasks.run(leased.lease.run_id)).agent_id
    assert left.started_at.ToDatetime(UTC) == began_at
    await tasks.lease()
    # It was not begun by the two claims that left it behind.
    (last,) = await tasks.lease()
    run = await tasks.run(last.lease.run_id)
    assert (run.attempt, run.started_at.ToDatetime(UTC)) == (1, tasks.clock.now())


async def test_what_was_never_begun_and_is_left_behind_has_no_start(tasks: Tasks) -> None:
    task = await tasks.create()
    run_ids = await tasks.queue_runs(task.id, 2, payload=payload(3 * MIB))
    assert len(await tasks.lease(limit=2)) == 1
    left = await tasks.run(run_ids[1])
    assert (left.status, left.attempt, left.HasField("started_at")) == (run_pb2.RUN_STATUS_QUEUED, 0, False)


async def test_a_claim_reads_no_more_than_it_may_answer(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 10, payload=payload(MIB))
    claimed = await tasks.database.transact(
        lambda connection, clock: lease_runs(
            connection, worker_id=new_id(), agent_id=new_id(), role="", limit=10, clock=clock
        )
    )
    assert len(claimed.runs) == 4
    free = select(func.count()).where(tables.runs.c.lease_token.is_(None))
    assert await tasks.database.read(lambda connection, clock: connection.execute(free).scalar_one()) == 6
