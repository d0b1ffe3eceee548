"""Which runs are on a page: their ids, found without reading what lies between them.

The history has an index for each column that is filtered by, which goes on with status and id. So for each pair of
value and status the newest runs are a range that is read from its end; a page is the newest of those.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    Subquery,
    desc,
    func,
    select,
    text,
    true,
    union_all,
)

from services.chassis.ids import lowest_id_at, new_id
from services.tasks.models.run import LIVE, RunStatus
from services.tasks.models.run_filter import ENDED, RunFilter
from services.tasks.store import batch, matching
from services.tasks.store.matching import Span, instant_of
from services.tasks.store.tables import run_history, runs

_STATUS = String(16)
_h = run_history.c
# It is told of no value how common it is. It must not take one for rare, and read and sort all of its runs.
_in_order = text(
    "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true), "
    "set_config('enable_incremental_sort', 'off', true)"
)
_WINDOWS = (timedelta(days=31), timedelta(days=155))
# Fewer than these are read whole and sorted, without planning by what PostgreSQL guesses of a value.
_FEW = 1000


def newest_ids(
    connection: Connection, wanted: RunFilter, *, limit: int, before_id: str | None = None, offset: int = 0
) -> list[str]:
    """Up to `limit` ids of the runs that pass a filter without text, newest first, after passing over `offset`."""
    reach = matching.span(wanted, before_id)
    found: list[str] = []
    read_in_order(connection)
    for window in windows(reach) if batch.is_postgres(connection) else [reach]:
        found += _newest_within(connection, wanted, window, offset + limit - len(found))
        if len(found) == offset + limit:
            break
    return found[offset:]


def read_in_order(connection: Connection) -> None:
    """Keeps PostgreSQL from reading all that a filter finds and sorting it, until the end of the transaction."""
    if batch.is_postgres(connection):
        connection.execute(_in_order)


def windows(reach: Span) -> Iterator[Span]:
    """The span cut in three, the newest first: a month, half a year, all the rest.

    Most pages are full after the first. Planning a statement takes a time for each partition that it can touch, which
    is much longer than reading a page.
    """
    bound, now = reach.bound, new_id()
    for length in _WINDOWS:
        start = lowest_id_at(instant_of(min(bound or now, now)) - length)
        if start <= (reach.lowest or ""):
            break
        yield reach._replace(lowest=start, bound=bound)
        bound = start
    yield reach._replace(bound=bound)


def _newest_within(connection: Connection, wanted: RunFilter, reach: Span, limit: int) -> list[str]:
    sides = _live(wanted, reach, limit)
    parameters: dict[str, Any] = {}
    if wanted.ended:
        ended, parameters = _ended(connection, wanted, reach, limit)
        sides.append(ended)
    if not sides:
        return []
    # Wrapped, because SQLite allows no ORDER BY inside of a compound SELECT.
    found = union_all(*(select(side.subquery()) for side in sides)).subquery()
    page = select(found.c.id).order_by(desc(found.c.id)).limit(limit)
    return list(connection.execute(page, parameters).scalars())


def _live(wanted: RunFilter, reach: Span, limit: int) -> list[Select[Any]]:
    """Live runs by status, so that the few that are held or reported are not looked for among all that wait."""
    if not wanted.live:
        return []
    query = select(runs.c.id).where(*matching.values(wanted, runs.c), *reach.conditions(runs.c))
    query = query.order_by(runs.c.id.desc()).limit(limit)
    if wanted.live == LIVE:
        return [query]
    sides = [query.where(runs.c.reported_status.in_([status.value for status in wanted.live]))]
    ours = runs.c.reported_status.is_(None)
    if RunStatus.QUEUED in wanted.live:
        sides.append(query.where(ours, runs.c.lease_token.is_(None)))
    if RunStatus.RUNNING in wanted.live:
        sides.append(query.where(ours, runs.c.lease_token.is_not(None)))
    return sides


def _ended(connection: Connection, wanted: RunFilter, reach: Span, limit: int) -> tuple[Select[Any], dict[str, Any]]:
    lead = leading(connection, wanted, reach)
    if lead is not None and lead.has_few:
        return _of_few(wanted, lead.column, reach, limit, batch.is_postgres(connection)), {}
    driver = lead and lead.column
    if driver is None and wanted.ended == ENDED:
        query = select(_h.id).where(*matching.values(wanted, run_history.c), *reach.conditions(_h))
        return query.order_by(_h.id.desc()).limit(limit), {}
    pairs = [(value, status.value) for value in _values(wanted, driver) for status in sorted(wanted.ended)]
    columns: batch.Columns = {"value": _h[driver].type if driver else _STATUS, "status": _STATUS}
    postgres = batch.is_postgres(connection)
    pair = batch.given(columns, postgres)
    newest = select(_h.id).where(
        *matching.values(wanted, _h, without=driver, leading=driver),
        *reach.conditions(_h),
        _h.status == pair.c.status,
    )
    if driver:
        newest = newest.where(_h[driver] == pair.c.value)
    newest = newest.order_by(_h.id.desc(), *_tail(driver)).limit(limit)
    return _of_each(pair, newest, postgres), batch.rows(connection, columns, pairs)


def _tail(driver: str | None) -> list[ColumnElement[Any]]:
    """What stands behind the id in a column's index, and decides nothing: so no other index is in the order.

    PostgreSQL would take the one of all ids when it guesses that most of them are hits.
    """
    return [] if driver in ("batch_id", "event_id") else [_h.duration_ms.desc()]


def _of_each(pair: Any, newest: Select[Any], postgres: bool) -> Select[Any]:
    if postgres:
        each = newest.correlate(pair).lateral("newest")
        return select(each.c.id).select_from(pair.join(each, true()))
    found = run_history.alias("found")
    return select(found.c.id).select_from(pair.join(found, found.c.id.in_(newest.correlate(pair))))


class Lead(NamedTuple):
    """A column that is filtered by, and whether finished runs of what is sought in it are known to be few."""

    column: str
    has_few: bool


def leading(connection: Connection, wanted: RunFilter, reach: Span) -> Lead | None:
    """The column that is filtered by and has the fewest finished runs, as far as they are counted; None for none.

    Of those that have many, it is the one with the fewest values, and then the one that usually has the fewest runs of
    one value. The runs of no batch are no range of the index of batches.
    """
    lists = {column: getattr(wanted, name) for column, name in matching.VALUES.items()}
    columns = [column for column, values in lists.items() if values and not (column == "batch_id" and "" in values)]
    if len(columns) < 2:
        return Lead(columns[0], has_few=False) if columns else None
    postgres = batch.is_postgres(connection)
    some = {column: _some(_h.id, wanted=wanted, column=column, reach=reach, postgres=postgres) for column in columns}
    counts = (select(func.count()).select_from(found).scalar_subquery().label(column) for column, found in some.items())
    counted = connection.execute(select(*counts)).one()._mapping
    column = min(columns, key=lambda column: (counted[column], len(lists[column])))
    return Lead(column, counted[column] < _FEW)


def _of_few(wanted: RunFilter, column: str, reach: Span, limit: int, postgres: bool) -> Select[Any]:
    c = _some(*_h, wanted=wanted, column=column, reach=reach, postgres=postgres).c
    query = select(c.id).where(*matching.values(wanted, c, without=column), *reach.conditions(c))
    return query.order_by(c.id.desc()).limit(limit)


def _some(*read: Any, wanted: RunFilter, column: str, reach: Span, postgres: bool) -> Subquery:
    """Up to `_FEW` finished runs of what is sought in one column, found by its index."""
    only: dict[str, Any] = {name: () for name in matching.VALUES.values() if name != matching.VALUES[column]}
    of_these = matching.ended(replace(wanted, **only))
    some = select(*read).where(*of_these, *Span(reach.lowest, reach.bound).conditions(_h)).limit(_FEW)
    # PostgreSQL is shown the order of that index, and of no other.
    return (some.order_by(_h[column], _h.status, _h.id) if postgres else some).subquery()


def _values(wanted: RunFilter, driver: str | None) -> list[str]:
    return sorted(set(getattr(wanted, matching.VALUES[driver]))) if driver else [""]
