"""An OTLP receiver: what a tracing backend would be sent."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True)
class Span:
    """One received span."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    """The traces that it is linked to."""


class Receiver(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps the spans of all processes."""

    def __init__(self) -> None:
        self.address = ""
        self.exported = b""
        """All that was sent, as it came."""
        self._spans: dict[str, Span] = {}

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.exported += request.SerializeToString()
        if isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest):
            return metrics_service_pb2.ExportMetricsServiceResponse()
        for resource in request.resource_spans:
            service = next(
                item.value.string_value for item in resource.resource.attributes if item.key == "service.name"
            )
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._spans[span.span_id.hex()] = _read(service, span)
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: str) -> list[Span]:
        """All spans of one trace so far."""
        return [span for span in self._spans.values() if span.trace_id == trace_id]


def _read(service: str, span: Any) -> Span:
    return Span(
        service=service.removeprefix("baton-"),
        name=span.name,
        kind=type(span).SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes={
            item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value") for item in span.attributes
        },
        links=tuple(link.trace_id.hex() for link in span.links),
    )


@contextmanager
def otlp_receiver() -> Iterator[Receiver]:
    """A receiver that listens on loopback."""
    server = grpc.server(ThreadPoolExecutor(4))
    receiver = Receiver()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(receiver, server)
    receiver.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None).wait()
