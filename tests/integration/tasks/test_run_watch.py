"""Being told runs as they change."""

import asyncio
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2
from baton.tasks.v1.run_pb2 import Run
from baton.tasks.v1.run_service_pb2 import (
    CancelRunRequest,
    CreateRunsRequest,
    NewRun,
    WatchRunsRequest,
    WatchRunsResponse,
)
from baton.tasks.v1.work_service_pb2 import RenewRunsRequest, RunDeferred, RunFailed, RunReport
from sqlalchemy import Connection, update

from services.chassis import tail
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Unavailable
from services.tasks.operations import run_watch
from services.tasks.store.tables import run_changes, runs
from tests.integration.tasks.past import fatal
from tests.integration.tasks.running import Tasks
from tests.support.statements import counted_statements

PROMPTLY = 20.0
QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELED = (
    run_pb2.RUN_STATUS_QUEUED,
    run_pb2.RUN_STATUS_RUNNING,
    run_pb2.RUN_STATUS_SUCCEEDED,
    run_pb2.RUN_STATUS_FAILED,
    run_pb2.RUN_STATUS_CANCELED,
)


class Watch:
    """Somebody who watches."""

    def __init__(self, tasks: Tasks, timeout: float | None = None, **fields: Any) -> None:
        self.call = tasks.runs.WatchRuns(WatchRunsRequest(**fields), timeout=timeout)
        self._messages = aiter(self.call)

    async def message(self) -> WatchRunsResponse:
        return await asyncio.wait_for(anext(self._messages), PROMPTLY)

    async def begun(self) -> WatchRunsResponse:
        first = await self.message()
        assert not first.HasField("run")
        return first

    async def until(self, run_id: str, status: run_pb2.RunStatus.ValueType) -> WatchRunsResponse:
        """What is told when a run has this status."""
        while (told := await self.message()).run.id != run_id or told.run.status != status:
            pass
        return told

    async def runs(self, count: int) -> dict[str, Run]:
        """So many different runs, each as it was told last."""
        found: dict[str, Run] = {}
        while len(found) < count:
            told = await self.message()
            found[told.run.id] = told.run
        return found


async def test_a_run_is_told_through_all_of_its_life(tasks: Tasks) -> None:
    task = await tasks.create(title="briefing", payload={"pipeline": [], "params": {"a": 1}})
    before = await tasks.run_now(task.id)
    watch = Watch(tasks)
    await watch.begun()
    run_id = await tasks.run_now(task.id)
    queued = await watch.until(run_id, QUEUED)
    assert (queued.run.task, queued.run.task_id) == ("briefing", task.id)
    assert not queued.run.HasField("inputs")
    leased = {one.lease.run_id: one for one in await tasks.lease(limit=2)}
    assert (await watch.until(run_id, RUNNING)).run.lease_owner
    tasks.clock.advance(seconds=1)
    retried = RunReport(lease=leased[run_id].lease, deferred=RunDeferred(error=fatal()))
    retried.deferred.wait.FromSeconds(1)
    assert await tasks.report(retried) == [True]
    assert (await watch.until(run_id, QUEUED)).run.attempt == 1
    tasks.clock.advance(seconds=2)
    (again,) = await tasks.lease()
    assert await tasks.finish(again.lease, answer=1)
    ended = await watch.until(run_id, SUCCEEDED)
    assert ended.run.attempt == 2
    assert await tasks.report(RunReport(lease=leased[before].lease, failed=RunFailed(error=fatal("no")))) == [True]
    assert (await watch.until(before, FAILED)).run.error.message == "no"
    called_off = await tasks.run_now(task.id)
    await tasks.runs.CancelRun(CancelRunRequest(run_id=called_off))
    await watch.until(called_off, CANCELED)
    watch.call.cancel()


async def test_who_holds_a_lease_longer_changes_nothing(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    watch = Watch(tasks)
    await watch.begun()
    (leased,) = await tasks.lease()
    await watch.until(run_id, RUNNING)
    tasks.clock.advance(seconds=5)
    await tasks.work.RenewRuns(RenewRunsRequest(leases=[leased.lease]))
    marker = await tasks.run_now(task.id)
    assert (await watch.message()).run.id == marker
    watch.call.cancel()


async def test_filters_let_through_their_own(tasks: Tasks) -> None:
    one, other = await tasks.create(role="planner"), await tasks.create()
    by_task = Watch(tasks, task_id=[one.id.upper()])
    by_role = Watch(tasks, role=["planner", "tester"])
    built_in = Watch(tasks, role=[""])
    by_status = Watch(tasks, status=[RUNNING])
    by_batch = Watch(tasks, batch_id=["nightly"])
    watches = (by_task, by_role, built_in, by_status, by_batch)
    for watch in watches:
        await watch.begun()
    await tasks.queue_runs(other.id, 1)
    (wanted,) = await tasks.queue_runs(one.id, 1)
    (nightly,) = await tasks.queue_runs(other.id, 1, batch_id="nightly")
    assert (await by_task.message()).run.id == wanted
    assert (await by_role.message()).run.id == wanted
    assert (await by_batch.message()).run.id == nightly
    assert {run.role for run in (await built_in.runs(2)).values()} == {""}
    (leased,) = await tasks.lease(role="planner")
    assert (await by_status.message()).run.id == leased.lease.run_id
    for watch in watches:
        watch.call.cancel()


async def test_who_comes_back_misses_nothing(tasks: Tasks) -> None:
    task = await tasks.create()
    stays, leaves = Watch(tasks), Watch(tasks)
    await stays.begun()
    await leaves.begun()
    (first,) = await tasks.queue_runs(task.id, 1)
    last = await leaves.until(first, QUEUED)
    leaves.call.cancel()
    second = await tasks.queue_runs(task.id, 3)
    back = Watch(tasks, after=last.position)
    begin = await back.begun()
    assert (begin.position, begin.resync) == (last.position, False)
    assert set(await back.runs(3)) == set(second)
    stays.call.cancel()
    back.call.cancel()


async def test_who_leaves_in_the_middle_of_a_batch_is_told_all_of_it_again(tasks: Tasks) -> None:
    """A place on PostgreSQL is a transaction."""
    task = await tasks.create()
    watch = Watch(tasks)
    await watch.begun()
    request = CreateRunsRequest(runs=[NewRun(task_id=task.id)] * 400)
    made = {run.run_id for run in (await tasks.runs.CreateRuns(request)).runs}
    some = [await watch.message() for _ in range(50)]
    back = Watch(tasks, after=some[-1].position)
    await back.begun()
    missing = made - {told.run.id for told in some}
    found: set[str] = set()
    while not missing <= found:
        found.add((await back.message()).run.id)
    watch.call.cancel()
    back.call.cancel()


async def test_what_was_not_noted_is_to_be_asked_for_anew(tasks: Tasks) -> None:
    task = await tasks.create()
    watch = Watch(tasks)
    begin = await watch.begun()
    assert not begin.resync
    await tasks.queue_runs(task.id, 1)
    watch.call.cancel()
    tasks.clock.advance(seconds=run_watch.NOTED_FOR.total_seconds() + 1)
    await tasks.queue_runs(task.id, 1)
    back = Watch(tasks, after=begin.position)
    assert (await back.begun()).resync
    (run_id,) = await tasks.queue_runs(task.id, 1)
    assert (await back.message()).run.id == run_id
    back.call.cancel()
    ahead = Watch(tasks, after=2**60)
    assert (await ahead.begun()).resync
    ahead.call.cancel()


async def test_only_so_much_is_kept(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_watch, "_KEPT", 5)
    task = await tasks.create()
    watch = Watch(tasks)
    begin = await watch.begun()
    for _ in range(10):
        await tasks.queue_runs(task.id, 1)
    await watch.runs(10)
    second = Watch(tasks)
    await second.begun()
    assert await tasks.count(run_changes) == 5
    back = Watch(tasks, after=begin.position)
    assert (await back.begun()).resync
    # Who was told of nothing for so long has to come back, too.
    with pytest.raises(Unavailable) as refused:
        await tasks.database.read(lambda connection, clock: run_watch.look(connection, begin.position, 10))
    assert refused.value.reason == "CHANGES_FORGOTTEN"
    for one in (watch, second, back):
        one.call.cancel()


async def test_while_nobody_watches_nothing_is_noted(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 3)
    for leased in await tasks.lease(limit=3):
        await tasks.finish(leased.lease)
    assert await tasks.count(run_changes) == 0


# On SQLite one transaction at a time writes.
@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_what_is_not_over_yet_is_told_in_its_turn(tasks: Tasks) -> None:
    """Whoever changes a run holds up nobody who changes another, and what it has changed is not missed."""
    task = await tasks.create()
    watch = Watch(tasks)
    await watch.begun()
    going_on, may_end = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    slow_id = await tasks.run_now(task.id)
    await watch.until(slow_id, QUEUED)

    def slowly(connection: Connection, clock: Clock) -> None:
        connection.execute(update(runs).where(runs.c.id == slow_id).values(updated_at=clock.now(), priority=1))
        loop.call_soon_threadsafe(going_on.set)
        asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result()

    tasks.clock.advance(seconds=1)
    slow = asyncio.create_task(tasks.database.transact(slowly))
    await going_on.wait()
    quick_id = await tasks.run_now(task.id)
    may_end.set()
    await slow
    assert set(await watch.runs(2)) == {slow_id, quick_id}
    watch.call.cancel()


async def test_the_tables_are_asked_once_for_all_who_watch(tasks: Tasks) -> None:
    task = await tasks.create()
    watches = [Watch(tasks) for _ in range(60)]
    for watch in watches:
        await watch.begun()
    (run_id,) = await tasks.queue_runs(task.id, 1)
    for watch in watches:
        await watch.until(run_id, QUEUED)
    with counted_statements() as statements:
        (run_id,) = await tasks.queue_runs(task.id, 1)
        for watch in watches:
            await watch.until(run_id, QUEUED)
    looks = [statement for statement in statements if "run_history" in statement]
    assert len(looks) < 10
    for watch in watches:
        watch.call.cancel()


async def test_it_ends_with_its_time_and_with_the_service(tasks: Tasks) -> None:
    watch, other = Watch(tasks, timeout=1.5), Watch(tasks)
    for one in (watch, other):
        await one.begun()
    with pytest.raises(StopAsyncIteration):
        await watch.message()
    tasks.service.stop_waiting()
    with pytest.raises(StopAsyncIteration):
        await other.message()


async def test_there_are_so_many_watchers_and_no_more(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "MAX_WATCHERS", 1)
    watch = Watch(tasks)
    await watch.begun()
    with pytest.raises(Unavailable) as refused:
        await Watch(tasks).begun()
    assert refused.value.reason == "TOO_MANY_WATCHERS"
    watch.call.cancel()


@pytest.mark.parametrize(
    ("fields", "field"), [({"after": -1}, "after"), ({"task_id": ["7"]}, "task_id[0]"), ({"status": [0]}, "status[0]")]
)
async def test_what_makes_no_sense_is_refused(tasks: Tasks, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await Watch(tasks, **fields).begun()
    assert [violation.field for violation in refused.value.violations] == [field]
