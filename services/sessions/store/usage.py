"""What agents have used, as rows: call by call, and added up by day, agent, session and model."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select

from services.chassis.ids import lowest_id_at
from services.chassis.upsert import upsert
from services.sessions.models.usage import AMOUNTS, Amounts, Call, CallFilter, Sum, SumFilter, UsageGroup
from services.sessions.store.many import insert_many
from services.sessions.store.tables import NO_SESSION, usage_calls, usage_days

Day = tuple[str, str, str, str]
"""Day, agent, session or NO_SESSION, and model: what is added up together."""
_CALL = [str(column.name) for column in usage_calls.c]
_KEYS = {
    UsageGroup.AGENT: usage_days.c.agent_id,
    UsageGroup.SESSION: usage_days.c.session_id,
    UsageGroup.DAY: usage_days.c.day,
    UsageGroup.MODEL: usage_days.c.model,
}


def add_calls(connection: Connection, calls: Sequence[Call]) -> None:
    """Stores new calls."""
    flat = ({**vars(call), **asdict(call.amounts)} for call in calls)
    insert_many(connection, usage_calls, [{name: row[name] for name in _CALL} for row in flat])


def known(connection: Connection, ids: Collection[str]) -> set[str]:
    """Those of the ids that calls have."""
    return set(connection.execute(select(usage_calls.c.id).where(usage_calls.c.id.in_(ids))).scalars())


def add_days(connection: Connection, used: Mapping[Day, tuple[int, Amounts]]) -> None:
    """Adds numbers of calls, and what they have used, to the sums; in one order, so that nobody waits in a circle."""
    statement = upsert(connection, usage_days)
    sums = {name: usage_days.c[name] + statement.excluded[name] for name in ("calls", *AMOUNTS)}
    statement = statement.on_conflict_do_update(index_elements=["day", "agent_id", "session_id", "model"], set_=sums)
    for day, (calls, amounts) in sorted(used.items()):
        key = dict(zip(("day", "agent_id", "session_id", "model"), day, strict=True))
        connection.execute(statement, {**key, "calls": calls, **asdict(amounts)})


def list_calls(connection: Connection, wanted: CallFilter, *, limit: int, before_id: str | None) -> list[Call]:
    """Up to `limit` calls, newest first, with smaller ids than `before_id`."""
    query = select(usage_calls).order_by(usage_calls.c.id.desc()).limit(limit)
    for name, value in vars(wanted).items():
        if value:
            query = query.where(usage_calls.c[name] == value)
    if before_id is not None:
        query = query.where(usage_calls.c.id < before_id)
    return [_call(row._asdict()) for row in connection.execute(query)]


def add_up(connection: Connection, wanted: SumFilter, *, limit: int, after: str | None) -> list[Sum]:
    """Up to `limit` sums in the order of their keys, behind the key `after`."""
    key = _KEYS[wanted.group]
    sums = [func.sum(usage_days.c[name]).label(name) for name in ("calls", *AMOUNTS)]
    query = select(key.label("key"), *sums).where(*_conditions(wanted)).group_by(key).order_by(key).limit(limit)
    if after is not None:
        query = query.where(key > after)
    return [_sum(row._asdict()) for row in connection.execute(query)]


def delete_oldest(connection: Connection, *, before: datetime, limit: int) -> int:
    """Deletes up to `limit` calls that were recorded before then; answers how many."""
    old = select(usage_calls.c.id).where(usage_calls.c.id < lowest_id_at(before)).order_by(usage_calls.c.id)
    return connection.execute(delete(usage_calls).where(usage_calls.c.id.in_(old.limit(limit)))).rowcount


def _conditions(wanted: SumFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.group is UsageGroup.SESSION:
        yield usage_days.c.session_id != NO_SESSION
    if wanted.agent_id:
        yield usage_days.c.agent_id == wanted.agent_id
    if wanted.session_id:
        yield usage_days.c.session_id == wanted.session_id
    if wanted.since_day:
        yield usage_days.c.day >= wanted.since_day
    if wanted.until_day:
        yield usage_days.c.day < wanted.until_day


def _call(fields: dict[str, Any]) -> Call:
    amounts = Amounts(**{name: fields.pop(name) for name in AMOUNTS})
    return Call(**fields, amounts=amounts)


def _sum(fields: dict[str, Any]) -> Sum:
    # PostgreSQL adds numbers of 64 bits up to decimals.
    return Sum(fields["key"], int(fields["calls"]), Amounts(**{name: int(fields[name]) for name in AMOUNTS}))
