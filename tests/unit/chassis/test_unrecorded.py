"""Traces through a process whose spans nobody takes."""

import re

from opentelemetry import trace
from opentelemetry.context import Context

from services.chassis import telemetry
from services.chassis.unrecorded import UnrecordedTracerProvider

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACER = UnrecordedTracerProvider().get_tracer("kiosk")


def test_a_trace_goes_on_through_it() -> None:
    origin = telemetry.remote_context({"traceparent": TRACEPARENT})
    with TRACER.start_as_current_span("outer", context=origin):
        outer = telemetry.traceparent()
        with TRACER.start_as_current_span("inner") as span:
            inner = telemetry.traceparent()
            assert not span.is_recording()
        assert telemetry.traceparent() == outer
    assert len({TRACEPARENT, outer, inner}) == 3
    assert {traceparent.split("-")[1] for traceparent in (outer, inner)} == {TRACEPARENT.split("-")[1]}


def test_a_trace_begins_in_it_and_is_recorded_further_on() -> None:
    with TRACER.start_as_current_span("first", context=Context()):
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", telemetry.traceparent())


def test_who_is_not_to_be_recorded_stays_so() -> None:
    origin = telemetry.remote_context({"traceparent": TRACEPARENT[:-2] + "00"})
    with TRACER.start_as_current_span("outer", context=origin):
        assert telemetry.traceparent().endswith("-00")


def test_what_is_no_traceparent_begins_a_new_trace() -> None:
    for text in ("", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", TRACEPARENT.upper(), "x"):
        origin = telemetry.remote_context({"traceparent": text})
        assert not trace.get_current_span(origin).get_span_context().is_valid
