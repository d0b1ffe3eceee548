"""Which workers asked for work lately."""

from datetime import timedelta

from baton.tasks.v1.work_service_pb2 import LeaseRunsRequest
from baton.tasks.v1.work_service_pb2_grpc import WorkServiceStub
from sqlalchemy import select

from services.chassis.ids import new_id
from services.tasks.store import tables
from services.tasks.store.worker import see_workers
from tests.integration.tasks.running import Tasks


async def seen(tasks: Tasks) -> set[tuple[object, ...]]:
    columns = tables.workers.c
    query = select(columns.id, columns.role, columns.agent_id, columns.seen_at)
    rows = await tasks.database.read(lambda connection, clock: connection.execute(query).all())
    return {tuple(row) for row in rows}


async def test_who_asks_for_work_is_written_down(tasks: Tasks) -> None:
    agent_id, worker_id = new_id(), new_id()
    work = WorkServiceStub(tasks.channel(["runs:work"], agent_id))
    for role in ("", "review"):
        # In capitals it is the same worker.
        for spelling in (worker_id, worker_id.upper()):
            await work.LeaseRuns(LeaseRunsRequest(worker_id=spelling, role=role))
    assert await seen(tasks) == set()
    await tasks.service.attendance.step()
    now = tasks.clock.now()
    assert await seen(tasks) == {(worker_id, role, agent_id, now) for role in ("", "review")}


async def test_who_asks_again_at_once_is_not_written_again(tasks: Tasks) -> None:
    request = LeaseRunsRequest(worker_id=new_id())
    await tasks.work.LeaseRuns(request)
    await tasks.service.attendance.step()
    before = await seen(tasks)
    tasks.clock.advance(seconds=5)
    await tasks.work.LeaseRuns(request)
    await tasks.service.attendance.step()
    assert await seen(tasks) == before


async def test_a_worker_that_is_seen_again_has_one_entry(tasks: Tasks) -> None:
    worker = (new_id(), "", new_id())
    for _ in range(2):
        tasks.clock.advance(minutes=1)
        await tasks.database.transact(lambda connection, clock: see_workers(connection, [worker], clock.now()))
    assert await seen(tasks) == {(*worker, tasks.clock.now())}


async def test_who_was_not_seen_for_an_hour_is_forgotten(tasks: Tasks) -> None:
    now, recent = tasks.clock.now(), (new_id(), "", new_id())
    for worker, since in ((recent, timedelta(minutes=59)), ((new_id(), "", new_id()), timedelta(minutes=61))):
        await tasks.database.transact(
            lambda connection, clock, worker=worker, at=now - since: see_workers(connection, [worker], at)
        )
    await tasks.service.reaper.step()
    assert {worker[0] for worker in await seen(tasks)} == {recent[0]}
