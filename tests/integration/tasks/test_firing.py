"""What firing takes into account: the end of schedules, runs under way, dedupe keys, snoozes, large payloads."""

from datetime import UTC, datetime, timedelta

import pytest
from baton.tasks.v1 import task_pb2
from baton.tasks.v1.run_service_pb2 import ListRunsRequest
from baton.tasks.v1.task_service_pb2 import GetTaskRequest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from sqlalchemy import select, update

from services.chassis.clock import instant_text
from services.chassis.wakeup import Wakeup
from services.tasks.background import Scheduler
from services.tasks.models.occurrence import Occurrence, Outcome
from services.tasks.store import schedule as schedule_store
from services.tasks.store import tables
from tests.integration.tasks.lifecycle import snooze
from tests.integration.tasks.running import Tasks, one_engine

EVERY_MINUTE = {"schedule_kind": task_pb2.SCHEDULE_KIND_CRON, "schedule_expr": "* * * * *"}
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)


@pytest.fixture(autouse=True)
def whole_minute(tasks: Tasks) -> None:
    tasks.clock.advance(seconds=60 - tasks.clock.now().timestamp() % 60)


async def fire(tasks: Tasks, **amount: float) -> None:
    """Lets time pass and the scheduler look once."""
    tasks.clock.advance(**amount)
    await tasks.service.scheduler.step()


async def judged(tasks: Tasks, task_id: str) -> list[Occurrence]:
    """The times of a task that were judged, in order."""
    query = select(tables.occurrences).where(tables.occurrences.c.task_id == task_id).order_by("scheduled_for")
    rows = await tasks.database.read(lambda connection, clock: connection.execute(query).all())
    return [Occurrence(**row._asdict() | {"outcome": Outcome(row.outcome)}) for row in rows]


async def read(tasks: Tasks, task_id: str) -> task_pb2.Task:
    return (await tasks.tasks.GetTask(GetTaskRequest(task_id=task_id))).task


async def run_ids(tasks: Tasks, task_id: str) -> list[str]:
    """The runs of a task, newest first."""
    return [run.id for run in (await tasks.runs.ListRuns(ListRunsRequest(task_id=[task_id]))).items]


async def test_a_rule_that_has_run_out_completes_its_task(tasks: Tasks) -> None:
    task = await tasks.create(schedule_kind=task_pb2.SCHEDULE_KIND_RRULE, schedule_expr="FREQ=MINUTELY;COUNT=2")
    await fire(tasks, minutes=1)
    assert (await read(tasks, task.id)).status == task_pb2.TASK_STATUS_ACTIVE
    await fire(tasks, minutes=1)
    over = await read(tasks, task.id)
    assert over.status == task_pb2.TASK_STATUS_COMPLETED
    assert not over.HasField("next_fire_at")
    assert not over.HasField("next_scheduled_for")
    await fire(tasks, days=1)
    assert [one.outcome for one in await judged(tasks, task.id)] == [Outcome.RAN, Outcome.RAN]


async def test_a_rule_counts_from_its_anchor_however_late_it_is_looked_at(tasks: Tasks) -> None:
    rule = {"schedule_kind": task_pb2.SCHEDULE_KIND_RRULE, "schedule_expr": "FREQ=MINUTELY;INTERVAL=7"}
    task = await tasks.create(**rule)
    begin = tasks.clock.now()
    await fire(tasks, minutes=20)
    assert [one.scheduled_for - begin for one in await judged(tasks, task.id)] == [7 * MINUTE, 14 * MINUTE]
    assert (await read(tasks, task.id)).next_fire_at.ToDatetime(UTC) == begin + 21 * MINUTE


async def test_skip_leaves_out_the_times_while_a_run_is_not_finished(tasks: Tasks) -> None:
    task = await tasks.create(**EVERY_MINUTE, overlap=task_pb2.OVERLAP_SKIP)
    other = await tasks.create(**EVERY_MINUTE, overlap=task_pb2.OVERLAP_SKIP)
    await fire(tasks, minutes=1)
    # Queued and running both count.
    await fire(tasks, minutes=1)
    leased = {one.task_id: one.lease for one in await tasks.lease(limit=2)}
    await fire(tasks, minutes=1)
    await tasks.finish(leased[task.id])
    await fire(tasks, minutes=1)
    first, second, third, fourth = await judged(tasks, task.id)
    assert [first.outcome, fourth.outcome] == [Outcome.RAN, Outcome.RAN]
    assert {(one.outcome, one.run_id) for one in (second, third)} == {(Outcome.SKIPPED_OVERLAP, first.run_id)}
    assert len(await run_ids(tasks, task.id)) == 2
    assert len(await run_ids(tasks, other.id)) == 1


async def test_queue_runs_them_one_after_the_other(tasks: Tasks) -> None:
    task = await tasks.create(**EVERY_MINUTE, overlap=task_pb2.OVERLAP_QUEUE)
    for _ in range(2):
        await fire(tasks, minutes=1)
    (first,) = await tasks.lease(limit=5)
    assert await tasks.lease(limit=5) == []
    await tasks.finish(first.lease)
    (second,) = await tasks.lease(limit=5)
    assert [second.lease.run_id, first.lease.run_id] == await run_ids(tasks, task.id)


async def test_allow_runs_them_side_by_side(tasks: Tasks) -> None:
    await tasks.create(**EVERY_MINUTE)
    for _ in range(2):
        await fire(tasks, minutes=1)
    assert len(await tasks.lease(limit=5)) == 2


async def test_a_firing_within_the_window_of_a_dedupe_key_is_suppressed(tasks: Tasks) -> None:
    key = {"dedupe_key": "report", "dedupe_window_seconds": 90}
    task = await tasks.create(**EVERY_MINUTE, **key)
    for _ in range(3):
        await fire(tasks, minutes=1)
    first, second, third = await judged(tasks, task.id)
    assert (second.outcome, second.run_id) == (Outcome.SUPPRESSED_DUPLICATE, first.run_id)
    assert (first.outcome, third.outcome) == (Outcome.RAN, Outcome.RAN)
    assert await run_ids(tasks, task.id) == [third.run_id, first.run_id]


async def test_tasks_of_one_owner_share_a_dedupe_key(tasks: Tasks) -> None:
    key = {"dedupe_key": "report", "dedupe_window_seconds": 600}
    created = [await tasks.create(**EVERY_MINUTE, **key) for _ in range(3)]
    await fire(tasks, minutes=1)
    outcomes = [one.outcome for task in created for one in await judged(tasks, task.id)]
    assert sorted(outcomes) == [Outcome.RAN, Outcome.SUPPRESSED_DUPLICATE, Outcome.SUPPRESSED_DUPLICATE]


@pytest.mark.parametrize(
    ("misfire", "count"), [(task_pb2.MISFIRE_SKIP, 1), (task_pb2.MISFIRE_RUN_ONCE, 1), (task_pb2.MISFIRE_RUN_ALL, 5)]
)
async def test_a_task_says_what_becomes_of_late_times(tasks: Tasks, misfire: task_pb2.Misfire, count: int) -> None:
    task = await tasks.create(**EVERY_MINUTE, misfire=misfire)
    await fire(tasks, minutes=5)
    assert len(await run_ids(tasks, task.id)) == count
    assert len(await judged(tasks, task.id)) == 5


async def test_a_snoozed_time_fires_later_for_its_own_time(tasks: Tasks) -> None:
    instant = tasks.clock.now() + MINUTE
    task = await tasks.create(
        schedule_kind=task_pb2.SCHEDULE_KIND_ONCE, schedule_expr=instant.isoformat(), misfire=task_pb2.MISFIRE_SKIP
    )
    later = instant + timedelta(days=2)
    moved = update(tables.tasks).where(tables.tasks.c.id == task.id).values(next_fire_at=later)
    await tasks.database.transact(lambda connection, clock: connection.execute(moved))
    await fire(tasks, days=2)
    assert await judged(tasks, task.id) == []
    await fire(tasks, minutes=1)
    (one,) = await judged(tasks, task.id)
    assert (one.scheduled_for, one.outcome) == (instant, Outcome.RAN)
    (run_id,) = await run_ids(tasks, task.id)
    assert (await tasks.run(run_id)).due_at.ToDatetime(UTC) == later


@pytest.mark.parametrize("misfire", [task_pb2.MISFIRE_SKIP, task_pb2.MISFIRE_RUN_ONCE, task_pb2.MISFIRE_RUN_ALL])
async def test_a_schedule_by_the_second_that_was_snoozed_fires_once_and_goes_on(
    tasks: Tasks, misfire: task_pb2.Misfire
) -> None:
    task = await tasks.create(schedule_kind=task_pb2.SCHEDULE_KIND_CRON, schedule_expr="* * * * * *", misfire=misfire)
    begin = task.next_fire_at.ToDatetime(UTC)
    await snooze(tasks, task.id, 4)
    for _ in range(7):
        await fire(tasks, seconds=1)
    first, carried, *others = await judged(tasks, task.id)
    assert (first.scheduled_for, first.outcome) == (begin, Outcome.RAN)
    assert (carried.scheduled_for, carried.through) == (begin + SECOND, begin + 3 * SECOND)
    assert (carried.outcome, carried.run_id) == (Outcome.MISSED, None)
    assert carried.reason == f"the task was snoozed until {instant_text(begin + 4 * SECOND)}"
    assert [(one.scheduled_for, one.outcome) for one in others] == [
        (begin + number * SECOND, Outcome.RAN) for number in (4, 5, 6)
    ]
    assert len(await run_ids(tasks, task.id)) == 4


async def test_a_time_that_was_judged_gets_no_second_outcome_and_no_second_run(tasks: Tasks) -> None:
    task = await tasks.create(**EVERY_MINUTE)
    nominal = task.next_fire_at.ToDatetime(UTC)
    await fire(tasks, minutes=1)
    before = await judged(tasks, task.id), await run_ids(tasks, task.id)
    # As if a clock had been set back in between.
    back = update(tables.tasks).values(next_fire_at=nominal, next_scheduled_for=nominal)
    await tasks.database.transact(lambda connection, clock: connection.execute(back))
    await fire(tasks)
    assert (await judged(tasks, task.id), await run_ids(tasks, task.id)) == before
    assert (await read(tasks, task.id)).next_fire_at.ToDatetime(UTC) == nominal + MINUTE


async def test_large_payloads_are_fired_few_at_a_time(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_store, "MAX_CHARACTERS", 1500)
    created = [
        await tasks.create(**EVERY_MINUTE, payload={"pipeline": [], "params": {"a": "x" * 1000}}) for _ in range(5)
    ]
    tasks.clock.advance(minutes=1)
    assert [await tasks.service.scheduler.step() == 0.0 for _ in range(3)] == [True, True, False]
    assert [len(await run_ids(tasks, task.id)) for task in created] == [1] * 5


@one_engine
async def test_outcomes_and_lag_are_measured(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter", provider.get_meter)
    scheduler = Scheduler(tasks.database, Wakeup(), tasks.clock)
    await tasks.create(**EVERY_MINUTE)
    tasks.clock.advance(minutes=3, seconds=2)
    await scheduler.step()
    data = reader.get_metrics_data()
    assert data is not None
    found = {metric.name: metric.data.data_points for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    counted = {(point.attributes or {})["outcome"]: point for point in found["baton.occurrences"]}
    assert {name: point.value for name, point in counted.items() if isinstance(point, NumberDataPoint)} == {
        "missed": 2,
        "ran": 1,
    }
    (lag,) = found["orchestrator.scheduler.lag"]
    assert isinstance(lag, HistogramDataPoint)
    assert (lag.count, lag.sum) == (1, 2.0)
    provider.shutdown()


async def test_a_fired_run_takes_over_what_the_task_says(tasks: Tasks) -> None:
    fields = {"max_retries": 7, "backoff_strategy": task_pb2.BACKOFF_STRATEGY_LINEAR, "concurrency_key": "k"}
    task = await tasks.create(**EVERY_MINUTE, **fields, priority=2, role="reviewer")
    await fire(tasks, minutes=1)
    (run_id,) = await run_ids(tasks, task.id)
    run = await tasks.run(run_id)
    assert (run.max_retries, run.concurrency_key, run.priority, run.role) == (7, "k", 2, "reviewer")
    assert datetime.fromtimestamp(run.due_at.seconds, UTC) == tasks.clock.now()
