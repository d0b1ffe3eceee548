"""How runs went, in numbers."""

from datetime import UTC, timedelta

import pytest
from baton.tasks.v1.run_service_pb2 import (
    GetLatestRunRequest,
    GetRunStatsSummaryRequest,
    GetTaskRunStatsRequest,
    RunStats,
)

from services.chassis.errors import InvalidArgument, NotFound
from services.chassis.ids import id_at, new_id
from tests.integration.tasks.past import add_past_runs, failed_run, past_run
from tests.integration.tasks.running import Tasks, one_engine


async def stats(tasks: Tasks, task_id: str, **fields: int) -> RunStats:
    return (await tasks.runs.GetTaskRunStats(GetTaskRunStatsRequest(task_id=task_id, **fields))).stats


async def test_a_task_without_runs(tasks: Tasks) -> None:
    task = await tasks.create()
    assert await stats(tasks, task.id) == RunStats(days=30)
    assert not (await tasks.runs.GetLatestRun(GetLatestRunRequest(task_id=task.id))).HasField("run")


async def test_the_counts_of_a_task(tasks: Tasks) -> None:
    task, other = await tasks.create(), await tasks.create()
    now = tasks.clock.now()

    def of(task_id: str, days_ago: float, **changes: object) -> dict[str, object]:
        instant = now - timedelta(days=days_ago)
        return {"task_id": task_id, "id": id_at(instant), "created_at": instant, **changes}

    await add_past_runs(
        tasks,
        [
            past_run(**of(task.id, 1, duration_ms=1000)),
            past_run(**of(task.id, 2, duration_ms=2500)),
            past_run(**of(task.id, 3, duration_ms=None)),
            failed_run("no", **of(task.id, 4, duration_ms=10)),
            past_run(**of(task.id, 5, status="skipped", duration_ms=77_000)),
            past_run(**of(task.id, 6, status="canceled")),
            past_run(**of(task.id, 29, duration_ms=1500)),
            past_run(**of(task.id, 31)),
            past_run(**of(other.id, 1)),
        ],
    )
    found = await stats(tasks, task.id.upper())
    assert (found.days, found.total_runs, found.successful_runs, found.failed_runs) == (30, 7, 4, 1)
    assert (found.skipped_runs, found.canceled_runs, found.live_runs) == (1, 1, 0)
    assert (found.success_rate, found.failure_rate) == (0.8, 0.2)
    # Of four that have a duration: what was skipped or canceled says nothing of how long the work takes.
    assert found.avg_duration_seconds == pytest.approx(1.2525, abs=0.001)
    assert found.last_run_at.ToDatetime(UTC) == found.last_success_at.ToDatetime(UTC) == now - timedelta(days=1)
    assert found.last_failure_at.ToDatetime(UTC) == now - timedelta(days=4)
    assert (await stats(tasks, task.id, days=3)).total_runs in (2, 3)  # an id knows whole milliseconds
    assert (await stats(tasks, task.id, days=365)).total_runs == 8


async def test_live_runs_count_and_the_latest_run_is_whole(tasks: Tasks) -> None:
    task = await tasks.create(payload={"pipeline": [], "params": {"a": 1}})
    first, second = await tasks.queue_runs(task.id, 2)
    (leased,) = await tasks.lease()
    await tasks.finish(leased.lease, answer=42)
    found = await stats(tasks, task.id)
    assert (found.total_runs, found.live_runs, found.successful_runs, found.success_rate) == (2, 1, 1, 1.0)
    latest = (await tasks.runs.GetLatestRun(GetLatestRunRequest(task_id=task.id))).run
    assert latest == await tasks.run(second)
    assert latest.inputs["a"] == 1
    assert first < second


async def test_the_summary_of_all_tasks(tasks: Tasks) -> None:
    busy, idle = await tasks.create(), await tasks.create()
    await tasks.queue_runs(busy.id, 1)
    soon = tasks.clock.now() - timedelta(days=2)
    await add_past_runs(
        tasks,
        [
            past_run(id=id_at(soon), task_id=busy.id, duration_ms=2000),
            failed_run("no", id=id_at(soon), task_id=None, reported=True, duration_ms=1000),
            past_run(id=id_at(soon - timedelta(days=20)), task_id=idle.id),
        ],
    )
    week = await tasks.runs.GetRunStatsSummary(GetRunStatsSummaryRequest())
    assert (week.stats.days, week.stats.total_runs, week.total_tasks_executed) == (7, 3, 1)
    assert (week.stats.success_rate, week.stats.avg_duration_seconds, week.runs_per_day) == (0.5, 1.5, 0.4)
    month = await tasks.runs.GetRunStatsSummary(GetRunStatsSummaryRequest(days=30))
    assert (month.stats.total_runs, month.total_tasks_executed, month.runs_per_day) == (4, 2, 0.1)


@one_engine
async def test_what_cannot_be_counted(tasks: Tasks) -> None:
    for call, request in (
        (tasks.runs.GetTaskRunStats, GetTaskRunStatsRequest(task_id=new_id())),
        (tasks.runs.GetLatestRun, GetLatestRunRequest(task_id=new_id())),
    ):
        with pytest.raises(NotFound) as missing:
            await call(request)
        assert missing.value.reason == "TASK_NOT_FOUND"
    for days in (0, 366):
        with pytest.raises(InvalidArgument) as refused:
            await tasks.runs.GetRunStatsSummary(GetRunStatsSummaryRequest(days=days))
        assert [violation.field for violation in refused.value.violations] == ["days"]
