"""The traces that the tasks service begins by itself."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from services.tasks.spans import new_linked_trace, new_message_trace, new_trace

CAUSE = f"00-{0xABC:032x}-{0xDEF:016x}-01"
CALLING = NonRecordingSpan(SpanContext(0x123, 0x456, is_remote=False, trace_flags=TraceFlags(1)))


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()


def test_what_follows_from_something_in_baton_is_a_root_with_a_link(spans: InMemorySpanExporter) -> None:
    with trace.use_span(CALLING):
        begun = new_linked_trace("the task", CAUSE)
    (span,) = spans.get_finished_spans()
    assert (span.name, span.parent, span.attributes) == ("event.fire", None, {"baton.task.id": "the task"})
    assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [(0xABC, 0xDEF)]
    assert begun.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")
    assert span.context.trace_id not in (0xABC, 0x123)


@pytest.mark.parametrize("cause", ["", "00-0-0-01"])
def test_without_a_cause_there_is_no_link(spans: InMemorySpanExporter, cause: str) -> None:
    assert new_linked_trace("the task", cause)
    (span,) = spans.get_finished_spans()
    assert list(span.links) == []


def test_what_a_schedule_fires_is_a_root(spans: InMemorySpanExporter) -> None:
    with trace.use_span(CALLING):
        assert new_trace("the task")
    (span,) = spans.get_finished_spans()
    assert (span.name, span.parent, list(span.links)) == ("schedule.fire", None, [])


def test_what_a_message_of_a_stream_becomes_is_a_root(spans: InMemorySpanExporter) -> None:
    with trace.use_span(CALLING):
        begun = new_message_trace("events/5-0")
    (span,) = spans.get_finished_spans()
    assert (span.name, span.parent, span.attributes) == ("event.stream", None, {"baton.event.source_key": "events/5-0"})
    assert begun.startswith(f"00-{span.context.trace_id:032x}-")
