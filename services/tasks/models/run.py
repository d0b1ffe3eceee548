"""Runs, their steps and their leases."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from services.chassis.backoff import BackoffStrategy
from services.tasks.models.approval import Approval

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
    AWAITING_APPROVAL = "awaiting_approval"
    SKIPPED = "skipped"
    CANCELED = "canceled"


LIVE = frozenset({RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.AWAITING_APPROVAL})


class ApprovalState(StrEnum):
    """How far the approval of a run has come; spelt as the earlier ledger did."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


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
    CANCELED = "canceled"
    REPORTED = "reported"
    APPROVAL_REJECTED = "approval_rejected"
    BUDGET_EXCEEDED = "budget_exceeded"


RETRYABLE = frozenset({ErrorClass.TOOL, ErrorClass.TOOL_TIMEOUT, ErrorClass.INTERNAL})
"""The classes of failure that may pass."""


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
    task_id: str | None
    """None for a run that was reported from outside."""
    task: str
    batch_id: str
    role: str
    agent_id: str | None
    """Who works on it, or did last."""
    created_by: str
    reported: bool
    """Reported from outside: no worker here ever gets it."""
    retry_of: str | None
    status: RunStatus
    priority: int
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: int | None
    attempt: int
    retries: int
    max_retries: int
    concurrency_key: str
    outputs_uri: str
    log_excerpt: str
    approval_state: ApprovalState | None
    approver: str
    approval_note: str
    webhook_notified_at: datetime | None
    lease_owner: str | None
    lease_expires_at: datetime | None
    cancel_requested_at: datetime | None
    inputs: dict[str, Any] | None
    """None when only a summary was read."""
    output: dict[str, Any] | None
    error: RunError | None
    traceparent: str
    created_at: datetime
    updated_at: datetime
    event_id: str | None = None
    """The event that made it."""

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
    tries: int = 1
    output_uri: str = ""
    """Where the output is when it is too large to be here."""
    item: int | None = None
    """Which item of the step this is about; None: the step itself."""
    items: "StepItems | None" = None
    """What became of its items, of a step with foreach."""


@dataclass(frozen=True)
class StepItems:
    """What became of the items of a step."""

    total: int
    failed: int

    @property
    def succeeded(self) -> int:
        return self.total - self.failed


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
    role: str
    batch_id: str
    concurrency_key: str
    """The task's; or one of its own where `overlap` is `queue`, so that its runs go one after the other."""
    max_retries: int
    backoff_strategy: BackoffStrategy
    retry_of: str | None = None
    event_id: str | None = None
    event_depth: int | None = None
    """How many events and runs led to it, that event included; None counts as 0."""
    handoff_id: str | None = None
    """The hand-off of a workflow whose work it is; None for all other runs."""


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
    started_at: datetime
    """When it was first leased."""
    created_by: str
    event_id: str | None = None
    approvals: list[Approval] = field(default_factory=list)
    """Those that have been answered, the oldest first."""
    former_agent_id: str | None = None
    """Who worked on it before, in case that the run is left in the queue after all."""
    priority: int = 5
    waited: timedelta = timedelta()
    """From when it was due until it was leased."""


@dataclass(frozen=True)
class Succeeded:
    """Every step is done."""

    output: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """A step, or the run, failed."""

    error: RunError
    output: dict[str, Any]
    retry_after: timedelta = timedelta()
    """How long the tool asked to be left alone."""
    final: bool = False
    """Its step has been tried as often as that itself says: the run is not tried again."""


@dataclass(frozen=True)
class Deferred:
    """A step is to be tried again later, which costs the run none of its own retries."""

    error: RunError
    wait: timedelta


@dataclass(frozen=True)
class AwaitsApproval:
    """A step must be approved before it is begun."""

    step_id: str
    approver_role: str
    action: dict[str, Any] | None
    action_uri: str
    action_digest: str
    expires: timedelta


@dataclass(frozen=True)
class Canceled:
    """The run stopped before a step, because it was asked to."""

    output: dict[str, Any]


@dataclass(frozen=True)
class Released:
    """The worker gives the run back undone."""


Outcome = Succeeded | Failed | Deferred | AwaitsApproval | Canceled | Released


@dataclass(frozen=True)
class RunReport:
    """What a worker did in one run since its last report."""

    lease: Lease
    steps: list[RunStep]
    """And items of steps."""
    outcome: Outcome | None
    outputs_uri: str = ""
    """Where the output is when it is too large to be in the outcome."""
