"""Budgets, as messages."""

from datetime import datetime

from baton.sessions.v1 import budget_pb2
from baton.sessions.v1 import budget_service_pb2 as pb

from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import stored_id
from services.chassis.timestamps import to_timestamp
from services.sessions.convert.enums import from_enum, to_enum
from services.sessions.models.budget import Budget, BudgetMetric, BudgetPeriod, NewBudget

_CHANGEABLE = ("soft_limit", "hard_limit")


def new_budget(request: pb.CreateBudgetRequest) -> NewBudget:
    """What the caller wants to make."""
    period = request.period or budget_pb2.BUDGET_PERIOD_TOTAL
    return NewBudget(
        agent_id=stored_id(request.agent_id) or None,
        session_id=stored_id(request.session_id) or None,
        metric=from_enum(BudgetMetric, budget_pb2.BudgetMetric, request.metric),
        period=from_enum(BudgetPeriod, budget_pb2.BudgetPeriod, period),
        **{name: _limit(request, name) for name in _CHANGEABLE},
    )


def budget_changes(request: pb.UpdateBudgetRequest) -> dict[str, int | None]:
    """The limits that the caller wants to be different. Raises InvalidArgument."""
    named = list(dict.fromkeys(request.update_mask.paths))
    if strangers := [name for name in named if name not in _CHANGEABLE]:
        raise InvalidArgument.of(
            Violation("update_mask", f"{name} cannot be changed: make another budget") for name in strangers
        )
    wanted = named or [name for name in _CHANGEABLE if request.HasField(name)]  # type: ignore[arg-type]
    return {name: _limit(request, name) for name in wanted}


def budget_message(budget: Budget, now: datetime) -> budget_pb2.Budget:
    """A budget as it is answered, with what is used of it then."""
    return budget_pb2.Budget(
        id=budget.id,
        agent_id=budget.agent_id,
        session_id=budget.session_id,
        metric=to_enum(budget.metric, budget_pb2.BudgetMetric),
        period=to_enum(budget.period, budget_pb2.BudgetPeriod),
        soft_limit=budget.soft_limit,
        hard_limit=budget.hard_limit,
        used=budget.used_at(now),
        state=to_enum(budget.state_at(now), budget_pb2.BudgetState),
        period_ends_at=to_timestamp(budget.period.end(now)),
        created_by=budget.created_by,
        created_at=to_timestamp(budget.created_at),
        updated_at=to_timestamp(budget.updated_at),
    )


def _limit(request: pb.CreateBudgetRequest | pb.UpdateBudgetRequest, name: str) -> int | None:
    return getattr(request, name) if request.HasField(name) else None  # type: ignore[arg-type]
