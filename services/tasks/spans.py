"""The traces that the tasks service begins by itself."""

from opentelemetry.trace import SpanKind

from services.chassis import telemetry

_TASK_ID = "baton.task.id"


def new_trace(task_id: str) -> str:
    """Begins the trace of a scheduled run; answers its traceparent."""
    # Outside of any span, so that each scheduled run is the root of a trace of its own.
    with telemetry.tracer().start_as_current_span(
        "schedule.fire", context=telemetry.remote_context({}), kind=SpanKind.PRODUCER
    ) as span:
        span.set_attribute(_TASK_ID, task_id)
        return telemetry.traceparent()
