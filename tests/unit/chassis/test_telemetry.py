"""What a process logs."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from services.chassis import telemetry
from services.chassis.cleaned_spans import CleanedSpans

_PROGRAM = """
import logging
from services.chassis import telemetry
telemetry.configure("kiosk")
log = logging.getLogger("kiosk.sales")
log.info("sold", extra={"title": "Sunday", "pages": 24})
with telemetry.tracer().start_as_current_span("sale"):
    print(telemetry.traceparent())
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("till_broke")
log.debug("not_shown")
telemetry.shutdown()
"""


def test_logs_are_json_lines_with_their_trace() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    sold, broke = map(orjson.loads, done.stderr.splitlines())
    at = sold.pop("at")
    assert at.endswith("Z")
    assert sold == {
        "level": "INFO",
        "service": "kiosk",
        "logger": "kiosk.sales",
        "event": "sold",
        "title": "Sunday",
        "pages": 24,
    }
    assert broke["trace_id"] == done.stdout.split("-")[1]
    assert "ZeroDivisionError" in broke["exception"]


_DISCREET = """
import logging
from services.chassis import telemetry
def clean(value):
    return {key: item.replace("pa55", "***") if isinstance(item, str) else item for key, item in value.items()}
telemetry.configure("kiosk", clean=clean)
class Till:
    def __str__(self):
        return "a till with pa55"
try:
    raise ValueError("no pa55")
except ValueError:
    logging.getLogger("kiosk").exception("knows %s", "pa55", extra={"word": "pa55", "pages": 24, "till": Till()})
"""


def test_lines_are_cleaned_as_they_are_written() -> None:
    done = subprocess.run([sys.executable, "-c", _DISCREET], capture_output=True, text=True, check=True, timeout=60)
    (line,) = map(orjson.loads, done.stderr.splitlines())
    assert (line["event"], line["word"], line["till"], line["pages"]) == ("knows ***", "***", "a till with ***", 24)
    assert "no ***" in line["exception"]
    assert "pa55" not in done.stderr


def masked(value: Any) -> Any:
    """The value with `***` for `pa55`; the same one when there is none."""
    text = orjson.dumps(value).decode()
    return orjson.loads(text.replace("pa55", "***")) if "pa55" in text else value


@pytest.mark.parametrize(
    "tell",
    [
        lambda span: span.update_name("is pa55"),
        lambda span: span.set_attribute("word", "is pa55"),
        lambda span: span.set_attribute("words", ["a", "pa55"]),
        lambda span: span.set_status(Status(StatusCode.ERROR, "is pa55")),
        lambda span: span.add_event("is pa55", {"a": 1}),
        lambda span: span.record_exception(ValueError("is pa55")),
    ],
)
def test_spans_are_cleaned_before_they_are_exported(tell: Callable[[Span], None]) -> None:
    exported = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(CleanedSpans(exported, masked)))
    tracer = provider.get_tracer("kiosk")
    with (
        tracer.start_as_current_span("sale") as parent,
        tracer.start_as_current_span("told", kind=SpanKind.CLIENT, attributes={"n": 1}) as span,
    ):
        tell(span)
    told, _ = exported.get_finished_spans()
    assert "pa55" not in told.to_json()
    assert "***" in told.to_json()
    assert ((told.attributes or {})["n"], told.kind) == (1, SpanKind.CLIENT)
    assert (told.context, told.parent) == (span.get_span_context(), parent.get_span_context())
    assert told.start_time
    assert told.end_time


def test_outside_of_any_span_there_is_no_trace() -> None:
    assert telemetry.traceparent() == ""
    assert telemetry.trace_id() == ""
