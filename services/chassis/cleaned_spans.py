"""Spans as they may leave the process: whatever texts a library put into them have been cleaned."""

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

Clean = Callable[[Any], Any]
"""Answers a JSON value without what must not be told: the same object when there is nothing of it."""


class CleanedSpans(SpanExporter):
    """Cleans the names, attributes, events and status of spans before another exporter gets them."""

    def __init__(self, exporter: SpanExporter, clean: Clean) -> None:
        self._exporter = exporter
        self._clean = clean

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([self._cleaned(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _cleaned(self, span: ReadableSpan) -> ReadableSpan:
        told = {
            "name": span.name,
            "attributes": dict(span.attributes or {}),
            "events": [{"name": event.name, "attributes": dict(event.attributes or {})} for event in span.events],
            "status": span.status.description,
        }
        cleaned = self._clean(told)
        return span if cleaned is told else _with(span, cleaned)


def _with(span: ReadableSpan, told: dict[str, Any]) -> ReadableSpan:
    return ReadableSpan(
        name=told["name"],
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=told["attributes"],
        events=[
            Event(cleaned["name"], cleaned["attributes"], event.timestamp)
            for event, cleaned in zip(span.events, told["events"], strict=True)
        ],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, told["status"]),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
