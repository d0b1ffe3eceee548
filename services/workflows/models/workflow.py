"""Work on its way along a template."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from services.workflows.models.template import TransitionKind


class WorkflowStatus(StrEnum):
    """How a workflow stands."""

    IN_PROGRESS = "in_progress"
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self in (WorkflowStatus.COMPLETE, WorkflowStatus.CANCELED)


class WorkflowEventType(StrEnum):
    """What happened to a workflow."""

    WORKFLOW_STARTED = "workflow_started"
    STATE_ADVANCED = "state_advanced"
    RETRY_REQUESTED = "retry_requested"
    ROLLED_BACK = "rolled_back"
    WORKFLOW_CANCELED = "workflow_canceled"
    HANDOFF_ACCEPTED = "handoff_accepted"
    HANDOFF_REJECTED = "handoff_rejected"
    HANDOFF_EXPIRED = "handoff_expired"
    REPORT_REFUSED = "report_refused"


@dataclass(frozen=True, kw_only=True)
class NewWorkflow:
    """What a caller wants to start."""

    build_id: str
    project_id: str
    user_id: str
    template: str
    requirements: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """Work on its way."""

    id: str
    build_id: str
    project_id: str
    user_id: str
    template: str
    template_version: int
    state: str
    status: WorkflowStatus
    retries: int
    error_reason: str
    requirements: Mapping[str, Any] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    version: int
    started_by: str
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    deadline: datetime | None
    """By when the state is to be left; None for whenever."""
    is_overdue: bool = False
    """Whether it was noticed that this was not done in time."""
    traceparent: str = ""
    """The span that has changed it last; empty for none."""


@dataclass(frozen=True)
class WorkflowFilter:
    """Which workflows are wanted; what is empty lets all through."""

    project_id: str = ""
    statuses: tuple[WorkflowStatus, ...] = ()
    state: str = ""
    build_id: str = ""
    is_overdue: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Advance:
    """What a caller says is done."""

    role: str
    completed_state: str
    result: Mapping[str, Any]
    next_state: str
    """Empty for the next one."""
    version: int | None
    """The version that is to be changed; None for whichever it is."""


@dataclass(frozen=True, kw_only=True)
class PhaseResult:
    """What came of a phase, one time that it was done."""

    id: str
    workflow_id: str
    phase: str
    attempt: int
    role: str
    agent_id: str
    result: Mapping[str, Any]
    completed_at: datetime
    superseded_at: datetime | None
    """When the phase had to be done again; None while the result counts."""


class HandoffStatus(StrEnum):
    """What has become of a hand-off."""

    OFFERED = "offered"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True, kw_only=True)
class Handoff:
    """Work that went from one state to the next."""

    id: str
    workflow_id: str
    from_role: str
    to_role: str
    from_state: str
    to_state: str
    kind: TransitionKind
    data: Mapping[str, Any]
    created_at: datetime
    status: HandoffStatus
    """Accepted at once where nobody has to accept it."""
    came_from: WorkflowStatus
    """How the workflow stood in the state that was left: it stands so again when nobody takes the work."""
    ack_deadline: datetime | None = None
    """By when it is to be accepted; None for whenever."""
    decided_by: str | None = None
    """The agent who has accepted or rejected it; None while nobody has."""
    decided_at: datetime | None = None
    reason: str = ""
    """Why it was rejected, or is not offered any more."""


@dataclass(frozen=True)
class HandoffFilter:
    """Which hand-offs are wanted; what is empty lets all through."""

    statuses: tuple[HandoffStatus, ...] = ()
    to_role: str = ""
    workflow_id: str = ""


@dataclass(frozen=True, kw_only=True)
class WorkflowEvent:
    """What happened to a workflow; there is one for each of its versions."""

    workflow_id: str
    sequence: int
    event_type: WorkflowEventType
    triggered_by: str
    role: str
    from_state: str
    to_state: str
    data: Mapping[str, Any]
    occurred_at: datetime
    trace_id: str
    """The trace that it happened in, 32 hex digits; empty for none."""


@dataclass(frozen=True)
class ProjectStats:
    """The workflows of a project in numbers."""

    by_status: Mapping[WorkflowStatus, int]
    average_seconds: float | None
    failure_point: str
    handoffs: int
    overdue: int

    @property
    def total(self) -> int:
        """How many workflows there are."""
        return sum(self.by_status.values())

    @property
    def success_rate(self) -> float | None:
        """How many of those that do not go on are complete, in percent; None when all go on."""
        settled = self.total - self.by_status.get(WorkflowStatus.IN_PROGRESS, 0)
        return 100.0 * self.by_status.get(WorkflowStatus.COMPLETE, 0) / settled if settled else None
