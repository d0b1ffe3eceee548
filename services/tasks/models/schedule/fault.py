"""What is wrong with a schedule."""

from services.chassis.errors import Violation
from services.tasks.models.task import ScheduleKind


class ScheduleFault(Exception):
    """A schedule that cannot be read; says in which fields, and why."""

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = violations


class Unreadable(Exception):
    """What is wrong with an expression."""


def require(expression: str, kind: ScheduleKind) -> None:
    """Raises Unreadable when there is no expression."""
    if not expression:
        raise Unreadable(f"is required for schedule_kind {kind}")
