"""Why something does not go on."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.tasks.models.condition import Evaluation
from services.tasks.models.event import Delivery
from services.tasks.models.occurrence import Occurrence


@dataclass(frozen=True)
class Blocker:
    """One thing in the way."""

    code: str
    """For programs; the contract lists them all."""
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    """What it is known from, as JSON."""
    action: str = ""
    """The one thing to do about it; empty when waiting is all."""


@dataclass(frozen=True)
class Explanation:
    """What is in the way, the first to be removed first, and the whole in one sentence."""

    summary: str
    blockers: list[Blocker]


@dataclass(frozen=True)
class TaskExplanation(Explanation):
    """The same of a task, and what it is known from."""

    next_fire_at: datetime | None
    last: Occurrence | None
    """The newest nominal time that has an outcome."""
    live_run_id: str | None
    """The oldest run that is not finished."""
    delivery: Delivery | None = None
    """What the newest event that the task was matched with did."""
    evaluation: Evaluation | None = None
    """What the task's condition told last."""
    next_probe_at: datetime | None = None
    """When that is probed next."""
