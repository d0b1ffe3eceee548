"""What became of the nominal times of a schedule."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a nominal time; it gets exactly one."""

    RAN = "ran"
    SKIPPED_OVERLAP = "skipped_overlap"
    MISSED = "missed"
    SUPPRESSED_DUPLICATE = "suppressed_duplicate"
    PAUSED = "paused"
    CANCELED = "canceled"


@dataclass(frozen=True)
class Occurrence:
    """One nominal time, or with `through` all of them from `scheduled_for` to there, and the outcome."""

    task_id: str
    scheduled_for: datetime
    through: datetime | None
    outcome: Outcome
    reason: str
    run_id: str | None
    """The run that was queued, or the one that was in the way."""
    decided_at: datetime
