"""What a worker counts and times of what it does."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from opentelemetry.metrics import Counter, Histogram

from services import metric_names
from services.chassis import telemetry


@cache
def _counter(name: str, description: str) -> Counter:
    return telemetry.meter().create_counter(name, description=description)


@cache
def _seconds(name: str, description: str) -> Histogram:
    return telemetry.meter().create_histogram(name, unit="s", description=description)


def count_step(seconds: float, *, succeeded: bool) -> None:
    """A step, or an item of one, that was done: not one that was skipped."""
    # Both, so that there is a zero to rise from.
    _counter(metric_names.STEP_SUCCESS, "steps that succeeded").add(int(succeeded))
    _counter(metric_names.STEP_FAILURE, "steps that failed").add(int(not succeeded))
    _seconds(metric_names.STEP_DURATION, "how long steps took").record(seconds)


_FINAL = ("succeeded", "failed", "canceled")


def count_execution(outcome: str, seconds: float, since_first: float) -> None:
    """One attempt at a run: how it ended, how long its lease was held, and how long ago its first attempt began."""
    _counter(metric_names.PIPELINE_EXECUTIONS, "attempts at runs, by outcome").add(1, {"outcome": outcome})
    _seconds(metric_names.LEASE_DURATION, "how long leases were held, by outcome").record(seconds, {"outcome": outcome})
    if outcome in _FINAL:
        _seconds(metric_names.TASK_DURATION, "from when runs were first leased until an attempt decided them").record(
            max(0.0, since_first), {"outcome": outcome}
        )


@contextmanager
def counted_call(tool: str) -> Iterator[None]:
    """One call of `tool`: a built-in one, or the server that it belongs to."""
    began, outcome = time.perf_counter(), "failed"
    try:
        yield
        outcome = "answered"
    finally:
        _counter(metric_names.EXTERNAL_TOOL_CALLS, "calls of tools, by tool and outcome").add(
            1, {"tool": tool, "outcome": outcome}
        )
        _seconds(metric_names.EXTERNAL_TOOL_DURATION, "how long calls of tools took, by tool").record(
            time.perf_counter() - began, {"tool": tool}
        )
