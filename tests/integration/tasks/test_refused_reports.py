"""Reports that come too late are counted."""

import pytest
from baton.tasks.v1.work_service_pb2 import RunReport
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.chassis import telemetry
from tests.integration.tasks.running import Tasks


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> InMemoryMetricReader:
    """What the service counts; to be asked for before the service."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("baton")
    monkeypatch.setattr(telemetry, "meter", lambda: meter)
    return reader


def counted(metrics: InMemoryMetricReader, name: str) -> int:
    data = metrics.get_metrics_data()
    found = [
        point.value  # type: ignore[union-attr]
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]
    return int(sum(found))


async def test_reports_of_a_worker_that_lost_its_runs_are_refused_and_counted(
    metrics: InMemoryMetricReader, tasks: Tasks
) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 3)
    lost = [run.lease for run in await tasks.lease(limit=3)]
    assert await tasks.finish(lost[0])
    assert counted(metrics, "baton.reports.refused") == 0
    tasks.clock.advance(seconds=31)
    await tasks.service.reaper.step()
    assert counted(metrics, "baton.lease.expiries") == 2
    late = [RunReport(lease=lease, succeeded={}) for lease in lost]
    assert await tasks.report(*late) == [False] * 3
    assert counted(metrics, "baton.reports.refused") == 3
