"""How agents and tasks stand with their budgets, as rows. There are few: one for each that has one."""

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, exists, literal_column, or_, select

from services.chassis.upsert import upsert
from services.tasks.models.budget import Standing, Subject, SubjectKind
from services.tasks.store.line import Line, lines_of
from services.tasks.store.tables import budget_standings, runs

_ONE: Select[Any] = select(literal_column("1")).select_from(budget_standings)
ANY_BLOCKED = exists(_ONE.where(budget_standings.c.is_blocked)).label("any_blocked")
"""Whether anybody is blocked: asked along with something else, it costs next to nothing."""
ANY_COUNTED = exists(_ONE.where(budget_standings.c.is_counted)).label("any_counted")
"""The same for whether anybody is counted."""


def save_standing(connection: Connection, standing: Standing) -> bool:
    """Stores what is said of an agent or a task, unless something later was said already; says whether."""
    statement = upsert(connection, budget_standings).values(asdict(standing))
    changes = {name: statement.excluded[name] for name in asdict(standing) if name not in ("kind", "subject_id")}
    saved = statement.on_conflict_do_update(
        index_elements=["kind", "subject_id"],
        set_=changes,
        where=budget_standings.c.told_by < statement.excluded.told_by,
    ).returning(budget_standings.c.kind)
    return connection.execute(saved).one_or_none() is not None


def standings(connection: Connection, subjects: Collection[Subject]) -> list[Standing]:
    """How those of the agents and tasks stand of which something is known."""
    by_kind: dict[SubjectKind, list[str]] = {}
    for kind, subject_id in subjects:
        by_kind.setdefault(kind, []).append(subject_id)
    theirs = (
        and_(budget_standings.c.kind == kind, budget_standings.c.subject_id.in_(ids)) for kind, ids in by_kind.items()
    )
    return [_standing(row) for row in connection.execute(select(budget_standings).where(or_(*theirs)))]


def leased_runs(connection: Connection, subject: Subject) -> list[str]:
    """The runs of an agent or a task that somebody works on."""
    kind, subject_id = subject
    if kind is SubjectKind.TASK:
        theirs = runs.c.task_id == subject_id
    else:
        theirs = or_(runs.c.created_by == subject_id, runs.c.agent_id == subject_id)
    return list(connection.execute(select(runs.c.id).where(runs.c.lease_token.is_not(None), theirs)).scalars())


def lines_of_runs(connection: Connection, run_ids: Collection[str]) -> set[Line]:
    """The lines that runs stand in."""
    query = select(runs.c.role, runs.c.concurrency_key).where(runs.c.id.in_(run_ids))
    return lines_of(connection.execute(query).all())


def _standing(row: Row[Any]) -> Standing:
    fields = row._asdict()
    return Standing(**fields | {"kind": SubjectKind(fields["kind"])})
