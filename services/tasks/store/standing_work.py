"""How much work stands waiting, and who is there to do it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, literal_column, select, true, union_all

from services.tasks.store.line import PRIORITIES, WAITS
from services.tasks.store.tables import runs, workers

COUNTED = 10_000
_CLAIMABLE = (runs.c.lease_token.is_(None), WAITS, ~runs.c.blocked)


@dataclass(frozen=True)
class StandingWork:
    """What could be leased right now."""

    due: int
    """How many runs, counted up to COUNTED."""
    oldest_due_at: datetime | None
    """Since when the one of them that has waited longest is due."""


@dataclass(frozen=True)
class Workforce:
    """Who asks for work."""

    active: int
    last_seen_at: datetime | None
    """When one of them last asked; None when nobody has for an hour."""


def standing_work(connection: Connection, now: datetime) -> StandingWork:
    """What is due and not held."""
    due = select(runs.c.id).where(*_CLAIMABLE, runs.c.due_at <= now).limit(COUNTED).subquery()
    count = connection.execute(select(func.count()).select_from(due)).scalar_one()
    oldest = connection.execute(_OLDEST).scalar_one() if count else None
    return StandingWork(count, oldest)


def workforce(connection: Connection, since: datetime) -> Workforce:
    """Those who asked for work since then."""
    active = func.count().filter(workers.c.seen_at >= since)
    row = connection.execute(select(active, func.max(workers.c.seen_at))).one()
    return Workforce(row[0], row[1])


def _oldest() -> Select[Any]:
    """The first of each role and priority is looked for by itself, so that no plan reads all of the queue."""
    first = select(func.min(runs.c.role).label("role")).where(*_CLAIMABLE)
    roles = first.cte("roles", recursive=True)
    after = select(func.min(runs.c.role)).where(*_CLAIMABLE, runs.c.role > roles.c.role).scalar_subquery()
    roles = roles.union_all(select(after).where(roles.c.role.is_not(None)))
    levels = union_all(*(select(literal_column(str(level)).label("level")) for level in PRIORITIES)).subquery("levels")
    oldest = (
        select(runs.c.due_at)
        .where(*_CLAIMABLE, runs.c.role == roles.c.role, runs.c.priority == levels.c.level)
        .order_by(runs.c.due_at)
        .limit(1)
        .scalar_subquery()
    )
    of_each = select(oldest.label("due_at")).select_from(roles.join(levels, true())).subquery("of_each")
    return select(func.min(of_each.c.due_at))


_OLDEST = _oldest()
