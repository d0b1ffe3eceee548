"""What the tasks service says of its queue, to everybody who asks."""

from typing import Any

import pytest
from baton.api.v1 import health_service_pb2 as pb
from baton.api.v1.health_service_pb2_grpc import HealthServiceStub
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sqlalchemy import text

from services.chassis import health, telemetry
from services.tasks.store import standing_work
from tests.integration.tasks.running import Tasks


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> InMemoryMetricReader:
    """What the service measures; to be asked for before the service."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("baton")
    monkeypatch.setattr(telemetry, "meter", lambda: meter)
    monkeypatch.setattr(health, "_ASK_AGAIN_AFTER_SECONDS", 0.0)
    return reader


async def told(tasks: Tasks) -> dict[str, pb.HealthCheck]:
    """What somebody without a token is told."""
    answer = await HealthServiceStub(tasks.channel_with(None)).CheckHealth(pb.CheckHealthRequest())
    return {check.name: check for check in answer.checks}


async def measured(tasks: Tasks, reader: InMemoryMetricReader) -> dict[str, Any]:
    await tasks.service.measuring.step()
    data = reader.get_metrics_data()
    return {
        metric.name.rpartition(".")[2]: point.value  # type: ignore[union-attr]
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if metric.name in ("orchestrator.due_work_queue_depth", "baton.queue.oldest_due", "orchestrator.active_workers")
    }


async def test_what_is_due_is_counted_and_the_oldest_of_it_told(reader: InMemoryMetricReader, tasks: Tasks) -> None:
    assert (await told(tasks))["queue"].message == "nothing is due"
    assert await measured(tasks, reader) == {"due_work_queue_depth": 0, "oldest_due": 0.0, "active_workers": 0}
    task, reviewed = await tasks.create(), await tasks.create(role="review")
    await tasks.queue_runs(reviewed.id, 1, role="review", priority=9)
    tasks.clock.advance(seconds=50)
    await tasks.queue_runs(task.id, 2, priority=1)
    tasks.clock.advance(seconds=10)
    assert await measured(tasks, reader) == {"due_work_queue_depth": 3, "oldest_due": 60.0, "active_workers": 0}
    queue = (await told(tasks))["queue"]
    assert (queue.status, dict(queue.details)) == (
        pb.HEALTH_STATUS_HEALTHY,
        {"due": "3", "oldest_due_seconds": "60.0"},
    )
    tasks.clock.advance(minutes=5)
    assert (await told(tasks))["queue"].status == pb.HEALTH_STATUS_DEGRADED


async def test_what_is_leased_or_not_due_does_not_wait(reader: InMemoryMetricReader, tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 1)
    tasks.clock.advance(seconds=5)
    await tasks.lease()
    await tasks.service.attendance.step()
    found = await measured(tasks, reader)
    assert found == {"due_work_queue_depth": 0, "oldest_due": 0.0, "active_workers": 1}


async def test_whether_anybody_asks_for_work_is_told(reader: InMemoryMetricReader, tasks: Tasks) -> None:
    assert (await told(tasks))["workers"].status == pb.HEALTH_STATUS_DEGRADED
    await tasks.lease()
    await tasks.service.attendance.step()
    workers = (await told(tasks))["workers"]
    assert (workers.status, workers.details["active"]) == (pb.HEALTH_STATUS_HEALTHY, "1")
    tasks.clock.advance(minutes=2)
    workers = (await told(tasks))["workers"]
    assert (workers.status, dict(workers.details)) == (
        pb.HEALTH_STATUS_DEGRADED,
        {"active": "0", "last_asked_seconds": "120.0"},
    )


async def test_the_oldest_is_found_without_reading_the_queue(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 500)

    def plan(connection: Any, clock: Any) -> str:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            explained = "EXPLAIN "
        else:
            explained = "EXPLAIN QUERY PLAN "
        statement = standing_work._OLDEST.compile(connection, compile_kwargs={"literal_binds": True})
        return "\n".join(str(row) for row in connection.exec_driver_sql(explained + str(statement)).all())

    found = await tasks.database.read(plan)
    assert "ix_runs_claim" in found
    assert "Seq Scan on runs" not in found
    assert "SCAN runs'" not in found


async def test_waiting_is_timed_by_priority(reader: InMemoryMetricReader, tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 1, priority=2)
    tasks.clock.advance(seconds=7)
    await tasks.lease()
    data = reader.get_metrics_data()
    (point,) = [
        point
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if metric.name == "baton.queue.wait"
    ]
    assert (point.attributes, point.sum) == ({"priority": 2}, 7.0)  # type: ignore[union-attr]
