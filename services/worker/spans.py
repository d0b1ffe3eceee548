"""The spans of a run: where they hang in a trace, and what they are called."""

from collections.abc import Iterator
from contextlib import contextmanager

from baton.tasks.v1 import work_service_pb2
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from services.chassis import telemetry

RUN_ID = "baton.run.id"
RUN_ATTEMPT = "baton.run.attempt"
RUN_OUTCOME = "baton.run.outcome"
STEP_ID = "baton.step.id"
STEP_USES = "baton.step.uses"
STEP_STATUS = "baton.step.status"


@contextmanager
def run_span(leased: work_service_pb2.LeasedRun) -> Iterator[Span]:
    """The span of one attempt. The first continues the trace in which the run was made; a later one has nothing to
    wait for there any more, so it begins a trace of its own, with a link."""
    origin = telemetry.remote_context({"traceparent": leased.traceparent})
    first = leased.lease.attempt == 1
    came_from = trace.get_current_span(origin).get_span_context()
    with telemetry.tracer().start_as_current_span(
        "run.execute",
        kind=SpanKind.CONSUMER,
        context=origin if first else Context(),
        links=[Link(came_from)] if came_from.is_valid and not first else [],
        attributes={RUN_ID: leased.lease.run_id, RUN_ATTEMPT: leased.lease.attempt},
        record_exception=False,
    ) as span:
        yield span


@contextmanager
def step_span(step_id: str, uses: str) -> Iterator[Span]:
    """The span of one step, beneath that of its run."""
    with telemetry.tracer().start_as_current_span(
        "step.execute", attributes={STEP_ID: step_id, STEP_USES: uses}, record_exception=False
    ) as span:
        yield span


def mark_failed(span: Span, error_type: str) -> None:
    span.set_attribute(telemetry.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR))


def span_id(span: Span) -> str:
    """16 hex digits, or an empty string when nothing is traced."""
    context = span.get_span_context()
    return trace.format_span_id(context.span_id) if context.is_valid else ""
