"""The spans and the log lines of a request."""

import logging
from collections.abc import Iterator

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from services.chassis import telemetry
from services.chassis.errors import PermissionDenied
from tests.unit.gateway.garden import OWN_JWT, Garden

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"Authorization": f"Bearer {OWN_JWT}", "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    telemetry.tracer.cache_clear()
    yield exporter
    telemetry.tracer.cache_clear()
    provider.shutdown()


def by_kind(spans: InMemorySpanExporter, kind: SpanKind) -> ReadableSpan:
    (found,) = [span for span in spans.get_finished_spans() if span.kind == kind]
    return found


async def test_a_request_is_one_span_that_continues_the_caller_s_trace(
    client: httpx2.AsyncClient, garden: Garden, spans: InMemorySpanExporter
) -> None:
    await client.get("/plants/?cursor=private", headers=HEADERS)
    server, call = by_kind(spans, SpanKind.SERVER), by_kind(spans, SpanKind.CLIENT)
    assert server.name == "GET /plants/"
    assert server.attributes == {
        "http.request.method": "GET",
        "http.route": "/plants/",
        "http.response.status_code": 200,
        "url.path": "/plants/",
    }
    assert trace.format_trace_id(server.context.trace_id) == TRACE_ID
    assert server.parent is not None
    assert trace.format_span_id(server.parent.span_id) == "b7ad6b7169203331"
    assert call.parent is not None
    assert call.parent.span_id == server.context.span_id
    sent = garden.greenhouse.metadata["traceparent"]
    assert sent == f"00-{TRACE_ID}-{trace.format_span_id(call.context.span_id)}-01"


async def test_a_failed_call_is_seen_on_both_spans(
    client: httpx2.AsyncClient, garden: Garden, spans: InMemorySpanExporter
) -> None:
    garden.greenhouse.fails_with = PermissionDenied("no", reason="SCOPE_MISSING")
    answer = await client.get("/plants/", headers=HEADERS)
    assert answer.json()["trace_id"] == TRACE_ID
    call = by_kind(spans, SpanKind.CLIENT)
    assert call.attributes is not None
    assert call.attributes["rpc.method"] == "greenhouse.v1.GreenhouseService/ListPlants"
    assert call.attributes["rpc.response.status_code"] == "PERMISSION_DENIED"
    assert by_kind(spans, SpanKind.SERVER).attributes["http.response.status_code"] == 403  # type: ignore[index]


async def test_an_unknown_path_is_no_span_name(client: httpx2.AsyncClient, spans: InMemorySpanExporter) -> None:
    await client.get("/some/thing/42")
    assert by_kind(spans, SpanKind.SERVER).name == "GET"


async def test_the_access_log_has_the_route_and_nothing_that_is_secret(
    client: httpx2.AsyncClient, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "services.gateway"):
        await client.get("/plants/p-1?token=private", headers=HEADERS)
    (line,) = [record for record in caplog.records if record.getMessage() == "request"]
    fields = vars(line)
    assert (fields["method"], fields["route"], fields["status"]) == ("GET", "/plants/{plant_id}", 400)
    assert fields["duration_ms"] > 0
    everything = "".join(str(vars(record)) for record in caplog.records)
    assert "private" not in everything
    assert OWN_JWT not in everything
