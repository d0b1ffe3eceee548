"""Traces, metrics and logs of a process.

Attribute names follow the OpenTelemetry semantic conventions 1.44 in their stable `rpc.*` and `http.*` form.
"""

import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.chassis.cleaned_spans import Clean, CleanedSpans
from services.chassis.unrecorded import UnrecordedTracerProvider

# Span and metric attribute names, so that none is spelled twice.
RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
ERROR_TYPE = "error.type"
ERROR_REASON = "baton.error.reason"
CALLER = "baton.caller"

_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
# The library's own are for milliseconds.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_SECONDS = View(
    instrument_type=Histogram, instrument_unit="s", aggregation=ExplicitBucketHistogramAggregation(_BUCKETS)
)
_log = logging.getLogger(__name__)
_propagator = TraceContextTextMapPropagator()
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(service: str, *, clean: Clean | None = None, exposes: bool = False) -> None:
    """Sets up traces, metrics and logs of this process; called once, by its `__main__`.

    Traces and metrics go to OTEL_EXPORTER_OTLP_ENDPOINT when it is set; without it spans still have ids, so that
    trace ids are on runs and in answers, but nothing is recorded. Metrics are also served at BATON_METRICS_LISTEN when
    that is set; with `exposes` the process serves the text of `chassis.exposition` by itself. Log lines and spans go
    through `clean`.
    """
    handler = _log_handler(service, clean)
    # What no line shows is not looked for: that was a third of what one costs (the logging how-to, "Optimization").
    logging._srcfile = None
    logging.setLogRecordFactory(_Record)
    logging.basicConfig(level=os.environ.get("BATON_LOG_LEVEL", "INFO").upper(), handlers=[handler])
    resource = Resource.create({"service.name": f"baton-{service}", "service.namespace": "baton"})
    tracer_provider: trace.TracerProvider = UnrecordedTracerProvider()
    readers: list[MetricReader] = []
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        # Imported only where they are used: the exporters are a third of what every process has to load.
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        recorded = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter: SpanExporter = OTLPSpanExporter()
        recorded.add_span_processor(BatchSpanProcessor(CleanedSpans(exporter, clean) if clean else exporter))
        tracer_provider = recorded
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
    address = os.environ.get("BATON_METRICS_LISTEN")
    if address or exposes:
        from services.chassis import exposition

        readers.append(exposition.reader())
        if address:
            exposition.serve_or_exit(service, address)
    trace.set_tracer_provider(tracer_provider)
    # Where no spans are kept, there is none to find by a measurement.
    exemplars = None if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") else AlwaysOffExemplarFilter()
    metrics.set_meter_provider(
        MeterProvider(readers, resource=resource, exemplar_filter=exemplars, shutdown_on_exit=False, views=[_SECONDS])
    )


def shutdown() -> None:
    """Sends what is still in the exporters' queues."""
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        stop = getattr(provider, "shutdown", None)
        if stop is not None:
            stop()


@cache
def tracer() -> trace.Tracer:
    # Making one takes as long as making several spans. Before there is a provider this answers a tracer that finds it.
    return trace.get_tracer("baton")


def meter() -> metrics.Meter:
    return metrics.get_meter("baton")


def traceparent(span: trace.Span | None = None) -> str:
    """A span, the current one if none is given, as a W3C `traceparent`; an empty string outside of any."""
    context = (span or trace.get_current_span()).get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def remote_context(carrier: Mapping[str, str]) -> Context:
    """The context that a caller sent along as `traceparent` and `tracestate`."""
    plain = None if "tracestate" in carrier else _TRACEPARENT.fullmatch(carrier.get("traceparent", ""))
    if plain is None:
        return _propagator.extract(carrier)
    # What nearly every call and run has, in a quarter of the time.
    caller = SpanContext(
        int(plain[1], 16), int(plain[2], 16), is_remote=True, trace_flags=TraceFlags(int(plain[3], 16))
    )
    return trace.set_span_in_context(NonRecordingSpan(caller), Context())


def link(to: str) -> None:
    """Links the current span to an earlier one, given as `traceparent`; an empty one, or none, is passed over."""
    origin = _span_context(to)
    if origin.is_valid:
        trace.get_current_span().add_link(origin)


@contextmanager
def continued(traceparent: str, name: str) -> Iterator[None]:
    """A span that goes on with the trace in which a message was sent, and has a link to the one that has brought it."""
    bringer = trace.get_current_span().get_span_context()
    with tracer().start_as_current_span(
        name,
        context=remote_context({"traceparent": traceparent}),
        kind=SpanKind.CONSUMER,
        links=[Link(bringer)] if bringer.is_valid else None,
    ):
        yield


@contextmanager
def measuring() -> Iterator[None]:
    """Around what only measures: when that fails it is logged, and nothing else fails."""
    try:
        yield
    except Exception:
        _log.warning("not_measured", exc_info=True)


def _span_context(traceparent: str) -> SpanContext:
    return trace.get_current_span(remote_context({"traceparent": traceparent})).get_span_context()


def trace_id() -> str:
    """The current trace as 32 hex digits, or an empty string outside of any."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


class _Record(logging.LogRecord):
    """What a line shows, and no more."""

    def __init__(self, name: str, level: int, *rest: Any, **_: object) -> None:
        # Not the initializer of its base class, which finds out all that there might be to show.
        _, _, self.msg, args, self.exc_info, *_unshown = rest
        self.name, self.levelno, self.levelname, self.created = name, level, logging.getLevelName(level), time.time()
        self.args = args[0] if args and len(args) == 1 and isinstance(args[0], Mapping) else args


class _JsonLines(logging.Formatter):
    """One JSON object per line: an event name, its fields, and the trace it belongs to."""

    def __init__(self, service: str, clean: Clean | None) -> None:
        super().__init__()
        self._service = service
        self._clean = clean

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _RECORD_FIELDS},
        }
        if current := trace_id():
            line["trace_id"] = current
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z)
        if self._clean is not None:
            # As what is really written, not as whatever objects it was made of.
            text = orjson.dumps(self._clean(orjson.loads(text)))
        return text.decode()


def _log_handler(service: str, clean: Clean | None) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(service, clean))
    return handler
