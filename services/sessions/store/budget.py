"""Budgets, as rows."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, or_, select, update

from services.chassis.upsert import upsert
from services.sessions.models.budget import Budget, BudgetMetric, BudgetPeriod
from services.sessions.store.tables import budgets, sessions


def add_budget(connection: Connection, budget: Budget) -> bool:
    """Stores a new budget, unless there is one of the same subject, metric and period; says whether."""
    row = upsert(connection, budgets).values(asdict(budget)).on_conflict_do_nothing()
    return connection.execute(row.returning(budgets.c.id)).one_or_none() is not None


def find_budget(connection: Connection, budget_id: str) -> Budget | None:
    """One budget by its id."""
    return _one(connection.execute(select(budgets).where(budgets.c.id == budget_id)).one_or_none())


def lock_budget(connection: Connection, budget_id: str) -> Budget | None:
    """A budget that nobody else changes before this transaction ends."""
    return _one(connection.execute(select(budgets).where(budgets.c.id == budget_id).with_for_update()).one_or_none())


def lock_budgets_of(connection: Connection, agent_ids: Collection[str], session_ids: Collection[str]) -> list[Budget]:
    """All budgets of some agents and sessions, locked in one order."""
    theirs = or_(budgets.c.agent_id.in_(agent_ids), budgets.c.session_id.in_(session_ids))
    query = select(budgets).where(theirs).order_by(budgets.c.id).with_for_update()
    return [_budget(row) for row in connection.execute(query)]


def budgets_of_agent(connection: Connection, agent_id: str) -> list[Budget]:
    """All budgets of an agent."""
    query = select(budgets).where(budgets.c.agent_id == agent_id)
    return [_budget(row) for row in connection.execute(query.order_by(budgets.c.id))]


def budgets_about(connection: Connection, task_id: str) -> list[Budget]:
    """All budgets of the sessions that are about a task."""
    about = select(sessions.c.id).where(sessions.c.task_id == task_id)
    query = select(budgets).where(budgets.c.session_id.in_(about))
    return [_budget(row) for row in connection.execute(query.order_by(budgets.c.id))]


def save_used(connection: Connection, budget_id: str, used: int, period_start: datetime) -> None:
    """Stores what is used of a budget that is locked."""
    connection.execute(update(budgets).where(budgets.c.id == budget_id).values(used=used, period_start=period_start))


def save_limits(connection: Connection, budget: Budget) -> None:
    """Stores the limits of a budget that is locked."""
    values = {name: getattr(budget, name) for name in ("soft_limit", "hard_limit", "updated_at")}
    connection.execute(update(budgets).where(budgets.c.id == budget.id).values(values))


def delete_budget(connection: Connection, budget_id: str) -> None:
    """Removes a budget."""
    connection.execute(delete(budgets).where(budgets.c.id == budget_id))


def list_budgets(
    connection: Connection, *, agent_id: str, session_id: str, limit: int, before_id: str | None
) -> list[Budget]:
    """Up to `limit` budgets, newest first, with smaller ids than `before_id`; an id that is empty lets all through."""
    query = select(budgets).order_by(budgets.c.id.desc()).limit(limit)
    if agent_id:
        query = query.where(budgets.c.agent_id == agent_id)
    if session_id:
        query = query.where(budgets.c.session_id == session_id)
    if before_id is not None:
        query = query.where(budgets.c.id < before_id)
    return [_budget(row) for row in connection.execute(query)]


def _one(row: Row[Any] | None) -> Budget | None:
    return None if row is None else _budget(row)


def _budget(row: Row[Any]) -> Budget:
    fields = row._asdict()
    return Budget(**fields | {"metric": BudgetMetric(fields["metric"]), "period": BudgetPeriod(fields["period"])})
