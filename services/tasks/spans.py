"""The traces that the tasks service begins by itself."""

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind

from services.chassis import telemetry

_TASK_ID = "baton.task.id"
_SOURCE_KEY = "baton.event.source_key"


def new_trace(task_id: str) -> str:
    """Begins the trace of a scheduled run; answers its traceparent."""
    return _root("schedule.fire", task_id, [])


def new_linked_trace(task_id: str, traceparent: str) -> str:
    """Begins the trace of a run that follows from something else in Baton, linked to that; answers its traceparent."""
    came_from = trace.get_current_span(telemetry.remote_context({"traceparent": traceparent})).get_span_context()
    return _root("event.fire", task_id, [Link(came_from)] if came_from.is_valid else [])


def new_message_trace(source_key: str) -> str:
    """Begins the trace of an event that a stream's message becomes, and of its runs; answers its traceparent."""
    return _root("event.stream", source_key, [], attribute=_SOURCE_KEY)


def _root(name: str, about: str, links: list[Link], *, attribute: str = _TASK_ID) -> str:
    # Outside of any span, so that each such run is the root of a trace of its own.
    with telemetry.tracer().start_as_current_span(
        name, context=telemetry.remote_context({}), kind=SpanKind.PRODUCER, links=links
    ) as span:
        span.set_attribute(attribute, about)
        return telemetry.traceparent()
