"""Schedules that fire: each nominal time once, whoever looks."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2, task_pb2
from baton.tasks.v1.run_service_pb2 import ListRunsRequest
from baton.tasks.v1.task_service_pb2 import GetTaskRequest
from sqlalchemy import select, update

from services.chassis import loops
from services.chassis.database import Database
from services.chassis.wakeup import Wakeup
from services.tasks.background import Scheduler
from services.tasks.operations import scheduling
from services.tasks.service import SCHEMA
from services.tasks.store import tables
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.work import PROMPTLY, waiting_workers
from tests.support.clock import ManualClock
from tests.support.waiting import await_until

CRON, ONCE = task_pb2.SCHEDULE_KIND_CRON, task_pb2.SCHEDULE_KIND_ONCE
HOUR = timedelta(hours=1)


@pytest.fixture
def other(tasks: Tasks) -> Iterator[Scheduler]:
    """The scheduler of another replica."""
    database = Database(tasks.settings.database_url, schema=SCHEMA, pool_size=2, clock=tasks.clock)
    yield Scheduler(database, Wakeup(), tasks.clock)
    database.close()


async def occurrences(tasks: Tasks, task_id: str) -> list[tuple[datetime, str, str | None]]:
    """The nominal times of a task that were judged, with their outcomes and runs, in order."""
    columns = tables.occurrences.c
    query = (
        select(columns.scheduled_for, columns.outcome, columns.run_id)
        .where(columns.task_id == task_id)
        .order_by(columns.scheduled_for)
    )
    rows = await tasks.database.read(lambda connection, clock: connection.execute(query).all())
    return [tuple(row) for row in rows]


async def runs_of(tasks: Tasks, task_id: str) -> dict[str, run_pb2.Run]:
    answer = await tasks.runs.ListRuns(ListRunsRequest(task_id=[task_id], limit=200))
    return {run.id: run for run in answer.items}


async def next_fire_at(tasks: Tasks, task_id: str) -> datetime | None:
    task = (await tasks.tasks.GetTask(GetTaskRequest(task_id=task_id))).task
    return task.next_fire_at.ToDatetime(UTC) if task.HasField("next_fire_at") else None


async def cron(tasks: Tasks, expression: str = "*/10 * * * *", **fields: Any) -> task_pb2.Task:
    return await tasks.create(schedule_kind=CRON, schedule_expr=expression, **fields)


async def change(tasks: Tasks, task_id: str, **values: Any) -> None:
    """Writes into a task's row."""
    statement = update(tables.tasks).where(tables.tasks.c.id == task_id).values(values)
    await tasks.database.transact(lambda connection, clock: connection.execute(statement))


async def status(tasks: Tasks, task_id: str) -> int:
    return (await tasks.tasks.GetTask(GetTaskRequest(task_id=task_id))).task.status


def to_ten_minutes(clock: ManualClock) -> None:
    """Moves the clock on to the next minute that ends in zero."""
    clock.advance(seconds=600 - clock.now().timestamp() % 600)


async def test_a_time_fires_when_it_has_come_and_not_before(tasks: Tasks) -> None:
    to_ten_minutes(tasks.clock)
    task = await cron(tasks, priority=2, payload={"pipeline": [], "params": {"a": 1}})
    nominal = tasks.clock.now() + timedelta(minutes=10)
    assert task.next_fire_at.ToDatetime(UTC) == nominal
    tasks.clock.advance(minutes=9, seconds=59.9)
    assert 0 < await tasks.service.scheduler.step() <= 0.11
    assert await occurrences(tasks, task.id) == []
    tasks.clock.advance(seconds=0.1)
    await tasks.service.scheduler.step()
    ((run_id, run),) = (await runs_of(tasks, task.id)).items()
    assert await occurrences(tasks, task.id) == [(nominal, "ran", run_id)]
    assert (run.status, run.priority, run.due_at.ToDatetime(UTC)) == (run_pb2.RUN_STATUS_QUEUED, 2, nominal)
    assert await next_fire_at(tasks, task.id) == nominal + timedelta(minutes=10)
    # Looking again changes nothing.
    await tasks.service.scheduler.step()
    assert len(await occurrences(tasks, task.id)) == 1


async def test_racing_schedulers_give_each_time_one_outcome(tasks: Tasks, other: Scheduler) -> None:
    begin = tasks.clock.now()
    created = [await cron(tasks, "* * * * * *") for _ in range(3)]
    for seconds in (1, 3, 1, 2, 5):
        tasks.clock.advance(seconds=seconds)
        await asyncio.gather(*(scheduler.step() for scheduler in (tasks.service.scheduler, other) * 3))
    for task in created:
        judged = await occurrences(tasks, task.id)
        assert [at for at, _, _ in judged] == [begin + timedelta(seconds=second) for second in range(1, 13)]
        ran = [run_id for _, outcome, run_id in judged if outcome == "ran"]
        assert len(ran) == 5
        assert set(ran) == set(await runs_of(tasks, task.id))


async def test_after_a_short_pause_the_newest_time_runs_and_the_others_were_missed(tasks: Tasks) -> None:
    to_ten_minutes(tasks.clock)
    begin = tasks.clock.now()
    task = await cron(tasks)
    tasks.clock.advance(minutes=35)
    await tasks.service.scheduler.step()
    (run_id,) = await runs_of(tasks, task.id)
    assert await occurrences(tasks, task.id) == [
        (begin + timedelta(minutes=10), "missed", None),
        (begin + timedelta(minutes=20), "missed", None),
        (begin + timedelta(minutes=30), "ran", run_id),
    ]
    assert await next_fire_at(tasks, task.id) == begin + timedelta(minutes=40)


async def test_after_a_long_pause_one_outcome_stands_for_all_times_before_the_window(tasks: Tasks) -> None:
    to_ten_minutes(tasks.clock)
    begin = tasks.clock.now()
    task = await cron(tasks)
    tasks.clock.advance(days=2, minutes=5)
    await tasks.service.scheduler.step()
    first, *others = await occurrences(tasks, task.id)
    assert first == (begin + timedelta(minutes=10), "missed", None)
    assert [outcome for _, outcome, _ in others] == ["missed"] * 5 + ["ran"]
    assert all(tasks.clock.now() - at <= HOUR for at, _, _ in others)
    through = await tasks.database.read(
        lambda connection, clock: connection.execute(
            select(tables.occurrences.c.through).where(tables.occurrences.c.through.is_not(None))
        ).scalar_one()
    )
    assert through == others[0][0] - timedelta(minutes=10)
    assert len(await runs_of(tasks, task.id)) == 1


async def test_what_was_noticed_too_late_does_not_run(tasks: Tasks) -> None:
    to_ten_minutes(tasks.clock)
    task = await cron(tasks, "@yearly")
    nominal = task.next_fire_at.ToDatetime(UTC)
    tasks.clock.advance(seconds=(nominal - tasks.clock.now() + HOUR).total_seconds() + 1)
    await tasks.service.scheduler.step()
    assert await occurrences(tasks, task.id) == [(nominal, "missed", None)]
    assert await runs_of(tasks, task.id) == {}
    following = await next_fire_at(tasks, task.id)
    assert following is not None
    assert following.year == nominal.year + 1


@pytest.mark.parametrize(
    ("late", "outcome"),
    [(timedelta(minutes=-5), None), (timedelta(0), "ran"), (HOUR, "ran"), (HOUR + timedelta(seconds=1), "missed")],
)
async def test_once_in_the_past_runs_within_the_hour(tasks: Tasks, late: timedelta, outcome: str | None) -> None:
    instant = tasks.clock.now() - late
    task = await tasks.create(schedule_kind=ONCE, schedule_expr=instant.isoformat())
    assert task.next_fire_at.ToDatetime(UTC) == instant
    await tasks.service.scheduler.step()
    judged = await occurrences(tasks, task.id)
    assert [(at, result) for at, result, _ in judged] == ([(instant, outcome)] if outcome else [])
    assert len(await runs_of(tasks, task.id)) == (1 if outcome == "ran" else 0)
    # Judged, it is over.
    assert await next_fire_at(tasks, task.id) == (None if outcome else instant)
    over = task_pb2.TASK_STATUS_COMPLETED
    assert await status(tasks, task.id) == (over if outcome else task_pb2.TASK_STATUS_ACTIVE)
    tasks.clock.advance(days=1)
    await tasks.service.scheduler.step()
    assert len(await occurrences(tasks, task.id)) == 1


@pytest.mark.parametrize("status", ["paused", "canceled", "completed"])
async def test_a_task_that_is_not_active_does_not_fire(tasks: Tasks, status: str) -> None:
    idle, active = await cron(tasks), await cron(tasks)
    await change(tasks, idle.id, status=status, paused_at=tasks.clock.now() if status == "paused" else None)
    tasks.clock.advance(minutes=10)
    await tasks.service.scheduler.step()
    assert await occurrences(tasks, idle.id) == []
    assert len(await occurrences(tasks, active.id)) == 1


@pytest.mark.usefixtures("hints_only")
async def test_a_scheduled_run_wakes_a_waiting_worker(tasks: Tasks) -> None:
    task = await cron(tasks)
    (waiting,) = await waiting_workers(tasks)
    tasks.clock.advance(minutes=10)
    await tasks.service.scheduler.step()
    assert await asyncio.wait_for(waiting, PROMPTLY) == list(await runs_of(tasks, task.id))


async def test_a_run_at_the_clock_change_fires_once_and_the_schedule_goes_on(tasks: Tasks) -> None:
    """Noticed in the second of the two hours, a time of the first is not fired a second time."""
    # 01:15 in New York for the second time, on a first Sunday of November; 01:30 was 45 minutes ago.
    now = datetime(2099, 11, 1, 6, 15, tzinfo=UTC)
    tasks.clock.advance(seconds=(now - tasks.clock.now()).total_seconds())
    task = await cron(tasks, "30 1 * * *", timezone="America/New_York")
    nominal = now - timedelta(minutes=45)
    await change(tasks, task.id, next_fire_at=nominal, next_scheduled_for=nominal)
    for _ in range(3):
        await tasks.service.scheduler.step()
        tasks.clock.advance(minutes=1)
    assert [(at, outcome) for at, outcome, _ in await occurrences(tasks, task.id)] == [(nominal, "ran")]
    assert await next_fire_at(tasks, task.id) == now + timedelta(days=1, minutes=15)


async def test_more_tasks_than_one_round_takes_are_fired_in_the_next(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "BATCH", 2)
    created = [await cron(tasks) for _ in range(3)]
    tasks.clock.advance(minutes=10)
    assert await tasks.service.scheduler.step() == 0.0
    assert await tasks.service.scheduler.step() > 0
    assert [len(await occurrences(tasks, task.id)) for task in created] == [1, 1, 1]


async def test_the_loop_outlives_a_database_that_is_away(tasks: Tasks, caplog: pytest.LogCaptureFixture) -> None:
    """The loop that the process runs goes on failing, and then goes on."""
    task = await cron(tasks, "* * * * * *")
    scheduler = Away(tasks.service.scheduler)
    tasks.clock.advance(seconds=1)
    running = asyncio.create_task(loops.forever("scheduler", scheduler.step, timeout=5))
    await await_until(lambda: scheduler.failures >= 3)
    assert not running.done()
    assert await occurrences(tasks, task.id) == []
    scheduler.come_back()
    await await_until(lambda: occurrences(tasks, task.id))
    running.cancel()
    assert "loop_failed" in caplog.text


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ({"timezone": "Atlantis/Capital"}, "timezone: 'Atlantis/Capital' is not an IANA timezone"),
        ({"schedule_expr": "61 * * * *"}, "'61 * * * *' is not a cron expression"),
        (
            {"schedule_kind": "rrule", "schedule_expr": "FREQ=HOURLY;COUNT=10000;BYMONTHDAY=13;BYDAY=FR;BYHOUR=2"},
            "COUNT=10000, which does not run out within 30 years",
        ),
        ({"schedule_kind": "once", "schedule_expr": "soon " * 40}, "schedule_expr: 'soon soon"),
    ],
)
async def test_a_schedule_that_cannot_be_read_any_more_stops_no_other(
    tasks: Tasks, caplog: pytest.LogCaptureFixture, stored: dict[str, str], reason: str
) -> None:
    to_ten_minutes(tasks.clock)
    before, broken, behind = [await cron(tasks) for _ in range(3)]
    await change(tasks, broken.id, **stored)
    for _ in range(2):
        tasks.clock.advance(minutes=10)
        await tasks.service.scheduler.step()
    for healthy in (before, behind):
        assert [outcome for _, outcome, _ in await occurrences(tasks, healthy.id)] == ["ran", "ran"]
    assert await occurrences(tasks, broken.id) == [(broken.next_fire_at.ToDatetime(UTC), "missed", None)]
    assert await next_fire_at(tasks, broken.id) is None
    (told,) = [vars(record) for record in caplog.records if record.message == "schedule_unreadable"]
    assert told["task_id"] == broken.id
    query = select(tables.occurrences.c.reason).where(tables.occurrences.c.task_id == broken.id)
    recorded = await tasks.database.read(lambda connection, clock: connection.execute(query).scalar_one())
    assert recorded == told["reason"]
    assert reason in recorded


class Away:
    """A scheduler whose database cannot be reached until it comes back."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._steps = [Scheduler(Database("postgresql://nobody@127.0.0.1:1/none", schema=SCHEMA), Wakeup()), scheduler]
        self.failures = 0

    async def step(self) -> float:
        try:
            return await self._steps[0].step()
        except Exception:
            self.failures += 1
            raise

    def come_back(self) -> None:
        del self._steps[0]
