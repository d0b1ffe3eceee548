"""Approvals."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, insert, literal, select, update

from services.chassis.ids import lowest_id_at, new_id
from services.tasks.models.approval import Approval, ApprovalFilter, ApprovalStatus, Ask
from services.tasks.store.tables import approvals, runs

_a = approvals.c


def add_approval(connection: Connection, run: Row[Any], ask: Ask, requested_by: str, now: datetime) -> str:
    """Stores a question about a run, of which `id`, `task_id` and `task` are needed; answers its id."""
    approval_id = new_id()
    connection.execute(
        insert(approvals).values(
            id=approval_id,
            run_id=run.id,
            task_id=run.task_id,
            task=run.task,
            step_id=ask.step_id,
            approver_role=ask.approver_role,
            requested_by=requested_by,
            reason=ask.reason,
            action=ask.action,
            action_uri=ask.action_uri or None,
            action_digest=ask.action_digest,
            status=ApprovalStatus.PENDING.value,
            expires_at=ask.expires_at,
            note="",
            created_at=now,
        )
    )
    return approval_id


def get_approval(connection: Connection, approval_id: str) -> Approval | None:
    row = connection.execute(select(approvals).where(_a.id == approval_id)).one_or_none()
    return None if row is None else _approval(row)


def lock_approval(connection: Connection, approval_id: str) -> Approval | None:
    """An approval that nobody else changes before this transaction ends."""
    row = connection.execute(select(approvals).where(_a.id == approval_id).with_for_update()).one_or_none()
    return None if row is None else _approval(row)


def pending_of_run(connection: Connection, run_id: str) -> str | None:
    """The id of the question about a run that is open."""
    query = select(_a.id).where(_a.run_id == run_id, _a.status == ApprovalStatus.PENDING.value)
    return connection.execute(query).scalar_one_or_none()


def list_approvals(
    connection: Connection, wanted: ApprovalFilter, *, limit: int, after_id: str | None
) -> list[Approval]:
    """Up to `limit` approvals behind `after_id`, in the order that the filter says."""
    query = select(approvals).where(_a.status.in_([status.value for status in wanted.statuses]))
    for column in (_a.approver_role, _a.run_id, _a.task_id):
        if value := getattr(wanted, column.name):
            query = query.where(column == value)
    if after_id is not None:
        query = query.where(_a.id > after_id if wanted.oldest_first else _a.id < after_id)
    query = query.order_by(_a.id if wanted.oldest_first else _a.id.desc()).limit(limit)
    return [_approval(row) for row in connection.execute(query)]


def answers_of(connection: Connection, run_ids: Sequence[str]) -> Mapping[str, list[Approval]]:
    """The approvals of each run that have been answered, the oldest first; runs that have some are few."""
    answers: dict[str, list[Approval]] = defaultdict(list)
    if run_ids:
        query = select(approvals).where(_a.run_id.in_(run_ids), _a.status != ApprovalStatus.PENDING.value)
        for row in connection.execute(query.order_by(_a.id)):
            answers[row.run_id].append(_approval(row))
    return answers


def due_ids(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Up to `limit` questions whose time is over."""
    query = select(_a.id).where(_a.status == ApprovalStatus.PENDING.value, _a.expires_at <= now)
    return list(connection.execute(query.order_by(_a.expires_at).limit(limit)).scalars())


def answer(
    connection: Connection,
    approval_id: str,
    status: ApprovalStatus,
    *,
    decided_by: str | None,
    note: str,
    now: datetime,
) -> None:
    """Closes a question that is locked; nobody decided one that has expired."""
    values = {"status": status.value, "decided_by": decided_by, "decided_at": now, "note": note}
    connection.execute(update(approvals).where(_a.id == approval_id).values(**values))


def cancel_pending(connection: Connection, run_ids: Collection[str], now: datetime) -> None:
    """Calls off what is asked about runs that have ended."""
    if run_ids:
        open_ones = update(approvals).where(_a.run_id.in_(run_ids), _a.status == ApprovalStatus.PENDING.value)
        connection.execute(open_ones.values(status=ApprovalStatus.CANCELLED.value, decided_at=now))


def delete_answered(connection: Connection, cutoff: datetime, limit: int) -> int:
    """Deletes up to `limit` approvals that were answered before `cutoff` and whose runs have ended, oldest first."""
    is_live = exists().where(runs.c.id == _a.run_id)
    before = _a.id < literal(lowest_id_at(cutoff), _a.id.type)
    old = select(_a.id).where(before, _a.decided_at < cutoff, ~is_live).order_by(_a.id).limit(limit)
    return connection.execute(delete(approvals).where(_a.id.in_(old))).rowcount


def use(connection: Connection, approval_id: str, now: datetime) -> None:
    """Notes that the approved call is begun."""
    connection.execute(update(approvals).where(_a.id == approval_id).values(used_at=now))


def _approval(row: Row[Any]) -> Approval:
    values = dict(row._mapping) | {"status": ApprovalStatus(row.status), "action_uri": row.action_uri or ""}
    return Approval(**values)
