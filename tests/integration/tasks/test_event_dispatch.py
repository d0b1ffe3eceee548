"""Events that are for more tasks than one transaction has room for, and several who match them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from baton.tasks.v1 import event_service_pb2 as pb
from baton.tasks.v1.task_pb2 import OVERLAP_SKIP
from baton.tasks.v1.task_service_pb2 import PauseTaskRequest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from sqlalchemy import Connection, func, select, update

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.wakeup import Wakeup
from services.pipeline.cel import Subject, compile_filter
from services.tasks.delivery_counts import DeliveryCounts
from services.tasks.dispatcher import Dispatcher
from services.tasks.operations import dispatch
from services.tasks.service import SCHEMA
from services.tasks.store import tables
from tests.integration.tasks.events import (
    RAN,
    SKIPPED,
    add_waiting,
    count_undispatched,
    dispatch_all,
    event_of,
    events_of,
    hint_for_the_dispatcher,
    publish,
    publisher,
    waiting_for,
)
from tests.integration.tasks.lifecycle import cancel
from tests.integration.tasks.lifecycle import update as change
from tests.integration.tasks.running import Tasks, one_engine
from tests.integration.tasks.work import waiting_workers
from tests.support.waiting import await_until


@pytest.fixture
def small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tasks in a transaction instead of a thousand."""
    monkeypatch.setattr(dispatch, "BATCH", 3)


async def many_waiting(tasks: Tasks, count: int, topic: str = "order.*", **fields: object) -> None:
    await tasks.database.transact(lambda connection, clock: add_waiting(connection, count, topic, **fields))


def outcomes(connection: Connection, clock: Clock) -> dict[str, int]:
    """How many deliveries there are of each outcome; each run has its delivery, and the other way round."""
    deliveries, runs = tables.event_deliveries.c, tables.runs.c
    ran = select(deliveries.event_id, deliveries.task_id, deliveries.run_id).where(deliveries.outcome == "ran")
    made = select(runs.event_id, runs.task_id, runs.id)
    assert sorted(map(tuple, connection.execute(ran))) == sorted(map(tuple, connection.execute(made)))
    counted = select(deliveries.outcome, func.count().label("number")).group_by(deliveries.outcome)
    return {row.outcome: row.number for row in connection.execute(counted)}


async def test_what_is_for_very_many_tasks_goes_on_behind_the_answer(tasks: Tasks) -> None:
    await many_waiting(tasks, 2500)
    done = await publish(tasks)
    assert (len(done.triggered_tasks), len(done.deliveries), done.complete) == (1000, 1000, False)
    so_far = (await event_of(tasks, done.event_id)).event
    assert (so_far.matched_tasks, so_far.triggered_runs, so_far.HasField("dispatched_at")) == (1000, 1000, False)
    await dispatch_all(tasks)
    event = (await event_of(tasks, done.event_id)).event
    assert (event.matched_tasks, event.triggered_runs, event.HasField("dispatched_at")) == (2500, 2500, True)
    assert await tasks.database.read(outcomes) == {"ran": 2500}


async def test_no_more_is_matched_at_once_than_there_is_room_for(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_MAX_BYTES", 1_000_000)
    await many_waiting(tasks, 20)
    done = await publish(tasks, payload={"a": "x" * 250_000})
    assert (len(done.deliveries), done.complete) == (3, False)
    await dispatch_all(tasks)
    assert await tasks.database.read(outcomes) == {"ran": 20}


async def test_no_more_filters_are_asked_at_once_than_there_is_time_for(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    filter_, payload = "event.items.all(x, event.items == event.items)", {"items": list(range(30))}
    work = compile_filter(filter_).work(Subject("order.created", payload))
    monkeypatch.setattr(dispatch, "_PREPARING", 0)
    monkeypatch.setattr(dispatch, "_MAX_FILTER_WORK", 2 * work)
    await many_waiting(tasks, 7, event_filter=filter_)
    done = await publish(tasks, payload=payload)
    assert (len(done.deliveries), done.complete) == (2, False)
    await dispatch_all(tasks)
    assert await tasks.database.read(outcomes) == {"ran": 7}


async def test_events_are_matched_in_their_order(tasks: Tasks, small_rounds: None) -> None:
    await many_waiting(tasks, 5)
    events = [await publish(tasks) for _ in range(3)]
    await tasks.service.dispatcher.step()
    found = [(await event_of(tasks, done.event_id)).event for done in events]
    assert [event.HasField("dispatched_at") for event in found] == [True, False, False]
    await dispatch_all(tasks)
    assert await tasks.database.read(outcomes) == {"ran": 15}


async def test_a_task_that_has_left_meanwhile_is_passed_over(tasks: Tasks, small_rounds: None) -> None:
    created = [await waiting_for(tasks, "order.*") for _ in range(6)]
    done = await publish(tasks)
    assert [delivery.task_id for delivery in done.deliveries] == [task.id for task in created[:3]]
    await cancel(tasks, created[3].id)
    await change(tasks, created[4].id, schedule_expr="invoice.*")
    await dispatch_all(tasks)
    event = (await event_of(tasks, done.event_id)).event
    assert event.matched_tasks == 4
    read = await publisher(tasks).ListEventDeliveries(pb.ListEventDeliveriesRequest(event_id=done.event_id))
    assert [delivery.task_id for delivery in read.items] == [task.id for task in (*created[:3], created[5])]


async def test_the_publisher_wakes_the_dispatcher(tasks: Tasks, small_rounds: None) -> None:
    await many_waiting(tasks, 4)
    async with hint_for_the_dispatcher(tasks):
        await publish(tasks)


async def test_workers_hear_of_what_the_dispatcher_queues(tasks: Tasks, small_rounds: None, hints_only: None) -> None:
    await many_waiting(tasks, 3, role="somebody")
    await waiting_for(tasks, "order.*")
    (worker,) = await waiting_workers(tasks)
    await publish(tasks)
    await dispatch_all(tasks)
    assert len(await asyncio.wait_for(worker, 3)) == 1


async def test_several_dispatchers_make_one_run_of_each_task_and_event(
    tasks: Tasks, migrated_url: str, small_rounds: None
) -> None:
    await many_waiting(tasks, 10)
    for _ in range(5):
        await publish(tasks)
    others, counts = [Database(migrated_url, schema=SCHEMA, pool_size=2) for _ in range(3)], DeliveryCounts()
    while await tasks.database.read(count_undispatched):
        await asyncio.gather(*(Dispatcher(other, Wakeup(), Wakeup(), counts).step() for other in others * 2))
    for other in others:
        other.close()
    assert await tasks.database.read(outcomes) == {"ran": 50}


async def test_racing_processes_of_which_one_is_killed_lose_nothing_and_do_nothing_twice(
    tasks: Tasks, migrated_url: str
) -> None:
    await many_waiting(tasks, 1200)
    for _ in range(4):
        await publish(tasks)
    # Back to where nobody has matched them.
    afresh = update(tables.events).values(
        dispatched_at=None, dispatched_to=None, matched_tasks=0, triggered_runs=0, is_matched=False
    )

    def forget(connection: Connection, clock: Clock) -> None:
        connection.execute(tables.event_deliveries.delete())
        connection.execute(tables.runs.delete())
        connection.execute(afresh)

    await tasks.database.transact(forget)
    with ExitStack() as running:
        processes = [running.enter_context(dispatcher_process(migrated_url)) for _ in range(2)]
        await await_until(lambda: tasks.database.read(some_delivered))
        processes[0].kill()
        running.enter_context(dispatcher_process(migrated_url))
        await await_until(lambda: tasks.database.read(all_dispatched))
    assert await tasks.database.read(outcomes) == {"ran": 4800}
    assert {event.triggered_runs for event in await events_of(tasks)} == {1200}


async def test_a_publisher_and_a_pause_do_not_miss_each_other(tasks: Tasks) -> None:
    """A run that is made of a task is one that its pause keeps waiting, or the event says that it was paused."""
    for _ in range(10):
        task = await waiting_for(tasks, "order.*")
        done, _ = await asyncio.gather(publish(tasks), tasks.tasks.PauseTask(PauseTaskRequest(task_id=task.id)))
        outcome = {delivery.task_id: delivery for delivery in done.deliveries}[task.id]
        if outcome.outcome == RAN:
            query = select(tables.runs.c.paused_at).where(tables.runs.c.id == outcome.run_id)
            paused_at = await tasks.database.read(
                lambda connection, clock, query=query: connection.execute(query).scalar_one()  # type: ignore[misc]
            )
            assert paused_at is not None
        await cancel(tasks, task.id)


async def test_of_events_that_race_a_task_that_skips_runs_one(tasks: Tasks) -> None:
    for number in range(5):
        await waiting_for(tasks, f"order.n{number}", overlap=OVERLAP_SKIP)
        done = await asyncio.gather(*(publish(tasks, f"order.n{number}") for _ in range(8)))
        found = [delivery for one in done for delivery in one.deliveries]
        assert sorted(delivery.outcome for delivery in found) == sorted([RAN, *[SKIPPED] * 7])
        assert len({delivery.run_id for delivery in found}) == 1


@one_engine
async def test_what_was_done_is_measured(tasks: Tasks, small_rounds: None, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    monkeypatch.setattr(metrics, "get_meter", MeterProvider([reader]).get_meter)
    dispatcher = Dispatcher(tasks.database, Wakeup(), Wakeup(), DeliveryCounts())
    await many_waiting(tasks, 4)
    await publish(tasks)
    await dispatcher.step()
    found = {
        metric.name: metric.data.data_points[0]
        for resource in reader.get_metrics_data().resource_metrics  # type: ignore[union-attr]
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    count, lag = found["baton.event.deliveries"], found["baton.event.lag"]
    assert isinstance(count, NumberDataPoint)
    assert isinstance(lag, HistogramDataPoint)
    assert (count.value, count.attributes, lag.count) == (1, {"outcome": "ran"}, 1)


def some_delivered(connection: Connection, clock: Clock) -> bool:
    return connection.execute(select(tables.event_deliveries.c.task_id).limit(1)).one_or_none() is not None


def all_dispatched(connection: Connection, clock: Clock) -> bool:
    return count_undispatched(connection, clock) == 0


@contextmanager
def dispatcher_process(url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A dispatcher of its own, killed at the end."""
    command = [sys.executable, "-m", "tests.integration.tasks.dispatcher_process", url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()
