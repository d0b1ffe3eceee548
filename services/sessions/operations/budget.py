"""Budgets: made, changed, spent, and told to those who enforce them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import new_id
from services.sessions.errors import BudgetExists, BudgetNotFound, SessionNotFound
from services.sessions.models.budget import TOLD_BY_RUNS, Budget, BudgetPeriod, BudgetState, NewBudget
from services.sessions.models.usage import Amounts
from services.sessions.operations.agent import get_agent
from services.sessions.store import budget as store
from services.sessions.store import session as session_store
from services.sessions.store import tables

_SOFT, _HARD = "budget.soft_exceeded", "budget.exceeded"
_MAX_REASON = 500


def create_budget(
    connection: Connection, new: NewBudget, caller: Caller, clock: Clock, *, request_id: str = ""
) -> Budget:
    """Makes a budget. Raises InvalidArgument, AgentNotFound, SessionNotFound or BudgetExists."""
    _check(new)
    if new.agent_id:
        get_agent(connection, agent_id=new.agent_id)
    elif session_store.find_session(connection, new.session_id or "") is None:
        raise SessionNotFound(new.session_id or "")
    now = clock.now()
    budget = Budget(
        **vars(new),
        id=new_id(),
        used=0,
        period_start=new.period.start(now),
        created_by=caller.agent_id,
        created_at=now,
        updated_at=now,
    )
    if not store.add_budget(connection, budget):
        raise BudgetExists(new.metric, new.period)
    _audit(connection, clock, "budget.create", budget, caller, after=_audited(budget), request_id=request_id)
    tell(connection, budget, clock)
    return budget


def get_budget(connection: Connection, budget_id: str) -> Budget:
    """One budget. Raises BudgetNotFound."""
    return _found(store.find_budget(connection, budget_id), budget_id)


def update_budget(
    connection: Connection,
    budget_id: str,
    changes: Mapping[str, Any],
    caller: Caller,
    clock: Clock,
    *,
    request_id: str = "",
) -> Budget:
    """Changes the limits of a budget. Raises BudgetNotFound or InvalidArgument."""
    before = _found(store.lock_budget(connection, budget_id), budget_id)
    after = replace(before, **changes)
    _check(after)
    if after != before:
        after = replace(after, updated_at=clock.now())
        store.save_limits(connection, after)
        tell(connection, after, clock)
    old, new = _audited(before), _audited(after)
    changed = [name for name in old if old[name] != new[name]]
    told = {name: old[name] for name in changed}, {name: new[name] for name in changed}
    _audit(connection, clock, "budget.update", after, caller, before=told[0], after=told[1], request_id=request_id)
    return after


def delete_budget(
    connection: Connection, budget_id: str, caller: Caller, clock: Clock, *, request_id: str = ""
) -> None:
    """Takes a budget away. Raises BudgetNotFound."""
    budget = _found(store.lock_budget(connection, budget_id), budget_id)
    store.delete_budget(connection, budget_id)
    _audit(connection, clock, "budget.delete", budget, caller, before=_audited(budget), request_id=request_id)
    tell(connection, budget, clock)


def spend(
    connection: Connection, by_agent: Mapping[str, Amounts], by_session: Mapping[str, Amounts], clock: Clock
) -> None:
    """Adds what was used to all budgets of these agents and sessions, and tells of limits that are reached."""
    now = clock.now()
    for budget in store.lock_budgets_of(connection, by_agent.keys(), by_session.keys()):
        used = by_agent[budget.agent_id] if budget.agent_id else by_session[budget.session_id or ""]
        if not (amount := budget.metric.of(used)):
            continue
        after = replace(budget, used=budget.used_at(now) + amount, period_start=budget.period.start(now))
        store.save_used(connection, budget.id, after.used, after.period_start)
        _tell_crossing(connection, budget, after, clock)


def tell(connection: Connection, budget: Budget, clock: Clock) -> None:
    """Tells the tasks service what of its is to stop, and of whose runs this one wants to hear.

    It is the whole of what there is to know of an agent or a task: whatever came before does not matter any more.
    """
    if budget.agent_id:
        _tell(connection, "agent", budget.agent_id, store.budgets_of_agent(connection, budget.agent_id), clock)
    elif task_id := _task_of(connection, budget):  # a session that is about nothing: nothing is done for it here
        _tell_of_task(connection, task_id, clock)


def tell_move(connection: Connection, session_id: str, task_ids: Collection[str | None], clock: Clock) -> None:
    """Tells of the tasks that a session was about and is about now: its budgets, if it has any, go with it."""
    # Whoever spends them at this moment tells of the one task or of the other, and not of what is over.
    if store.lock_budgets_of(connection, (), [session_id]):
        for task_id in filter(None, task_ids):
            _tell_of_task(connection, task_id, clock)


def _tell_of_task(connection: Connection, task_id: str, clock: Clock) -> None:
    _tell(connection, "task", task_id, store.budgets_about(connection, task_id), clock)


def _tell(connection: Connection, kind: str, subject_id: str, all_of_them: Sequence[Budget], clock: Clock) -> None:
    now = clock.now()
    exceeded = [one for one in all_of_them if one.state_at(now) is BudgetState.HARD_EXCEEDED]
    ends = [one.period.end(now) for one in exceeded]
    payload = {
        "kind": kind,
        "id": subject_id,
        "is_blocked": bool(exceeded),
        "blocked_until": _latest(ends),
        "is_counted": any(one.metric in TOLD_BY_RUNS for one in all_of_them),
        "reason": "; ".join(_why(one, now) for one in exceeded)[:_MAX_REASON],
    }
    outbox.publish(connection, tables.outbox, outbox.BUDGET, payload, clock)


def _tell_crossing(connection: Connection, before: Budget, after: Budget, clock: Clock) -> None:
    """Publishes which limits were reached just now."""
    now = clock.now()
    for topic, limit in ((_SOFT, after.soft_limit), (_HARD, after.hard_limit)):
        if limit is not None and before.used_at(now) < limit <= after.used:
            outbox.event(connection, tables.outbox, clock, topic=topic, payload=_published(after, now))
            if topic == _HARD:
                tell(connection, after, clock)


def _published(budget: Budget, now: datetime) -> dict[str, Any]:
    end = budget.period.end(now)
    return {
        "budget_id": budget.id,
        **_audited(budget),
        "used": budget.used,
        "period_ends_at": end.isoformat() if end else None,
    }


def _task_of(connection: Connection, budget: Budget) -> str | None:
    session = session_store.find_session(connection, budget.session_id or "")
    return session.task_id if session else None


def _latest(ends: list[datetime | None]) -> str | None:
    """When the last of them ends; None for never."""
    known = [end for end in ends if end is not None]
    return max(known).isoformat() if known and len(known) == len(ends) else None


def _why(budget: Budget, now: datetime) -> str:
    whose = f"agent {budget.agent_id}" if budget.agent_id else f"session {budget.session_id}"
    period = "" if budget.period is BudgetPeriod.TOTAL else f" this {budget.period}"
    return f"budget {budget.id} of {whose}: {budget.used_at(now)} of {budget.hard_limit} {budget.metric}{period}"


def _check(budget: NewBudget | Budget) -> None:
    """Raises InvalidArgument that names every fault."""
    faults = []
    if bool(budget.agent_id) is bool(budget.session_id):
        faults.append(Violation("agent_id", "give it or session_id, and not both: a budget is of one of them"))
    if budget.soft_limit is None and budget.hard_limit is None:
        faults.append(Violation("hard_limit", "is missing, and so is soft_limit: give one of them"))
    elif None not in (budget.soft_limit, budget.hard_limit) and budget.soft_limit > budget.hard_limit:  # type: ignore[operator]
        faults.append(Violation("soft_limit", f"is above the hard_limit of {budget.hard_limit}: it comes too late"))
    if budget.session_id and budget.period is not BudgetPeriod.TOTAL:
        faults.append(Violation("period", "is not for the budget of a session, which is one for all of it: use total"))
    if faults:
        raise InvalidArgument.of(faults)


def _found(budget: Budget | None, budget_id: str) -> Budget:
    if budget is None:
        raise BudgetNotFound(budget_id)
    return budget


def _audited(budget: Budget) -> dict[str, Any]:
    return {
        name: getattr(budget, name)
        for name in ("agent_id", "session_id", "metric", "period", "soft_limit", "hard_limit")
    }


def _audit(connection: Connection, clock: Clock, action: str, budget: Budget, caller: Caller, **told: Any) -> None:
    resource = f"budget/{budget.id}"
    outbox.audit(connection, tables.outbox, clock, action=action, actor=caller.agent_id, resource=resource, **told)
