"""Runs, their steps and their leases."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

LEASE = timedelta(seconds=30)
# A run whose holders died so often is ended: it probably kills them.
MAX_CRASHES = 3
MAX_OUTPUT_BYTES = 64 * 1024


class RunStatus(StrEnum):
    """How far a run has come."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


LIVE = frozenset({RunStatus.QUEUED, RunStatus.RUNNING})


class StepStatus(StrEnum):
    """What became of a step."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


class ErrorClass(StrEnum):
    """The kinds of failure."""

    VALIDATION = "validation"
    TEMPLATE = "template"
    CONDITION = "condition"
    TOOL = "tool"
    TOOL_TIMEOUT = "tool_timeout"
    INTERNAL = "internal"
    POISON = "poison"


@dataclass(frozen=True)
class RunError:
    """Why a run or a step failed."""

    error_class: ErrorClass
    message: str
    retryable: bool
    step_id: str


@dataclass(frozen=True)
class Run:
    """One execution of a task, as people read it."""

    id: str
    task_id: str
    task: str
    status: RunStatus
    priority: int
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: int | None
    attempt: int
    inputs: dict[str, Any] | None
    """None when only a summary was read."""
    output: dict[str, Any] | None
    error: RunError | None
    traceparent: str
    created_at: datetime
    updated_at: datetime

    @property
    def trace_id(self) -> str:
        """The trace of the run, out of `00-<trace id>-<span id>-<flags>`."""
        return self.traceparent[3:35]


@dataclass(frozen=True)
class RunStep:
    """What one step of a run did."""

    position: int
    id: str
    uses: str
    status: StepStatus
    attempt: int
    input_digest: str
    output: Any
    error: RunError | None
    started_at: datetime
    finished_at: datetime
    duration_ms: int
    span_id: str


@dataclass(frozen=True)
class NewRun:
    """A run to be queued."""

    id: str
    task_id: str
    task: str
    priority: int
    due_at: datetime
    payload: dict[str, Any]
    traceparent: str
    created_by: str


@dataclass(frozen=True)
class Lease:
    """The proof that a worker holds a run."""

    run_id: str
    attempt: int
    token: str


@dataclass(frozen=True)
class LeasedRun:
    """A run that a worker now holds."""

    lease: Lease
    expires_at: datetime
    task_id: str
    task: str
    payload: dict[str, Any]
    steps: list[RunStep]
    traceparent: str
    created_at: datetime


@dataclass(frozen=True)
class Succeeded:
    """Every step is done."""

    output: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """A step, or the run, failed."""

    error: RunError
    output: dict[str, Any]


@dataclass(frozen=True)
class Released:
    """The worker gives the run back undone."""


Outcome = Succeeded | Failed | Released


@dataclass(frozen=True)
class RunReport:
    """What a worker did in one run since its last report."""

    lease: Lease
    steps: list[RunStep]
    outcome: Outcome | None
