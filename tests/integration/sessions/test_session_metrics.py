"""Sessions that expire are counted by what ended them."""

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.chassis import telemetry
from tests.integration.sessions.lifecycles import owner_of
from tests.integration.sessions.running import Sessions


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> InMemoryMetricReader:
    """What the service counts; to be asked for before the service."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("baton")
    monkeypatch.setattr(telemetry, "meter", lambda: meter)
    return reader


def expired(metrics: InMemoryMetricReader) -> dict[Any, Any]:
    """How many sessions have expired, by reason."""
    data = metrics.get_metrics_data()
    return {
        point.attributes["reason"]: point.value  # type: ignore[index, union-attr]
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "baton.sessions.expired"
        for point in metric.data.data_points
    }


async def test_what_expires_is_counted_by_reason(metrics: InMemoryMetricReader, sessions: Sessions) -> None:
    owner = await owner_of(sessions)
    for timeouts in ({"idle_timeout_seconds": 5}, {"idle_timeout_seconds": 5}, {"max_lifetime_seconds": 5}, {}):
        await owner.begin(**timeouts)
    await sessions.service.session_expiry.step()
    assert expired(metrics) == {}
    sessions.clock.advance(seconds=5)
    await sessions.service.session_expiry.step()
    assert expired(metrics) == {"idle_timeout": 2, "max_lifetime": 1}
    sessions.clock.advance(days=7)
    await sessions.service.session_expiry.step()
    assert expired(metrics) == {"idle_timeout": 2, "max_lifetime": 1, "retention": 1}
