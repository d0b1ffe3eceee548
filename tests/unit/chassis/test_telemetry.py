"""What a process logs."""

import subprocess
import sys

import orjson

from services.chassis import telemetry

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


def test_outside_of_any_span_there_is_no_trace() -> None:
    assert telemetry.traceparent() == ""
    assert telemetry.trace_id() == ""
