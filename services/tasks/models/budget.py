"""Budgets, as far as runs are concerned."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class SubjectKind(StrEnum):
    """Whose runs a budget is about."""

    AGENT = "agent"
    """Those that an agent has created, and those that it leases."""
    TASK = "task"


Subject = tuple[SubjectKind, str]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How an agent or a task stands."""

    kind: SubjectKind
    subject_id: str
    is_blocked: bool
    blocked_until: datetime | None
    """None for until somebody says otherwise."""
    is_counted: bool
    """Whether somebody wants to hear what its runs use."""
    reason: str
    told_by: str

    @property
    def subject(self) -> Subject:
        """Whose it is."""
        return self.kind, self.subject_id

    def blocks(self, now: datetime) -> bool:
        """Whether its runs are kept back at this moment."""
        return self.is_blocked and (self.blocked_until is None or now < self.blocked_until)
