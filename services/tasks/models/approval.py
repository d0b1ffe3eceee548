"""Approvals: questions that somebody answers before a run goes on."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

DEFAULT_EXPIRY = timedelta(days=1)


class ApprovalStatus(StrEnum):
    """How far an approval has come."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Ask:
    """What is asked."""

    approver_role: str
    """Whom; empty for everybody who may decide."""
    action: dict[str, Any] | None
    action_digest: str
    expires_at: datetime | None
    """None: it waits for ever."""
    step_id: str = ""
    """Empty: the whole run."""
    action_uri: str = ""
    """Where the action is when it is too large to be here."""
    reason: str = ""


@dataclass(frozen=True)
class Approval:
    """A question and its answer."""

    id: str
    run_id: str
    task_id: str | None
    task: str
    step_id: str
    approver_role: str
    requested_by: str
    reason: str
    action: dict[str, Any] | None
    action_uri: str
    action_digest: str
    status: ApprovalStatus
    expires_at: datetime | None
    decided_by: str | None
    decided_at: datetime | None
    note: str
    used_at: datetime | None
    """When the approved call was last begun."""
    created_at: datetime


@dataclass(frozen=True)
class ApprovalFilter:
    """Which approvals are wanted."""

    statuses: tuple[ApprovalStatus, ...] = (ApprovalStatus.PENDING,)
    approver_role: str = ""
    run_id: str = ""
    task_id: str = ""

    @property
    def oldest_first(self) -> bool:
        """An inbox is worked off from its oldest entry; what is done is looked at from the newest."""
        return self.statuses == (ApprovalStatus.PENDING,)
