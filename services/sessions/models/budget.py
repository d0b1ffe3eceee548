"""What agents and sessions may use."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from services.sessions.models.usage import Amounts

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_MONTH = timedelta(days=31)


class BudgetMetric(StrEnum):
    """What a budget counts."""

    TOKENS = "tokens"
    COST_MICROUSD = "cost_microusd"
    TOOL_CALLS = "tool_calls"
    WALL_TIME_MS = "wall_time_ms"

    def of(self, amounts: Amounts) -> int:
        """How much of it is in what was used."""
        return sum(getattr(amounts, name) for name in _COUNTED[self])


_COUNTED: Mapping[BudgetMetric, tuple[str, ...]] = {
    BudgetMetric.TOKENS: ("input_tokens", "output_tokens"),
    BudgetMetric.COST_MICROUSD: ("cost_microusd",),
    BudgetMetric.TOOL_CALLS: ("tool_calls",),
    BudgetMetric.WALL_TIME_MS: ("wall_time_ms",),
}
TOLD_BY_RUNS = frozenset({BudgetMetric.TOOL_CALLS, BudgetMetric.WALL_TIME_MS})
"""What the runs of tasks use of themselves."""


class BudgetPeriod(StrEnum):
    """How long a budget lasts before it begins anew, in UTC."""

    TOTAL = "total"
    DAY = "day"
    MONTH = "month"

    def start(self, now: datetime) -> datetime:
        """When the current one began."""
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        match self:
            case BudgetPeriod.DAY:
                return midnight
            case BudgetPeriod.MONTH:
                return midnight.replace(day=1)
        return _BEGINNING

    def end(self, now: datetime) -> datetime | None:
        """When the current one ends; None for never."""
        start = self.start(now)
        match self:
            case BudgetPeriod.DAY:
                return start + timedelta(days=1)
            case BudgetPeriod.MONTH:
                return (start + _LONGEST_MONTH).replace(day=1)
        return None


class BudgetState(StrEnum):
    """How far a budget is used up."""

    WITHIN = "within"
    SOFT_EXCEEDED = "soft_exceeded"
    HARD_EXCEEDED = "hard_exceeded"


@dataclass(frozen=True, kw_only=True)
class NewBudget:
    """What a caller wants to make."""

    agent_id: str | None
    session_id: str | None
    metric: BudgetMetric
    period: BudgetPeriod
    soft_limit: int | None
    hard_limit: int | None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an agent or a session may use."""

    id: str
    agent_id: str | None
    session_id: str | None
    metric: BudgetMetric
    period: BudgetPeriod
    soft_limit: int | None
    hard_limit: int | None
    used: int
    """In the period that began at `period_start`."""
    period_start: datetime
    created_by: str
    created_at: datetime
    updated_at: datetime

    def used_at(self, now: datetime) -> int:
        """What was used in the period that is the current one then."""
        return self.used if self.period_start == self.period.start(now) else 0

    def state_at(self, now: datetime) -> BudgetState:
        """How far it is used up then."""
        used = self.used_at(now)
        if self.hard_limit is not None and used >= self.hard_limit:
            return BudgetState.HARD_EXCEEDED
        if self.soft_limit is not None and used >= self.soft_limit:
            return BudgetState.SOFT_EXCEEDED
        return BudgetState.WITHIN
