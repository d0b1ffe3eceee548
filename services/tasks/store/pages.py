"""Which runs are on a page: their ids, found without reading what lies between them.

The history has an index for each column that is filtered by, which goes on with status and id. So for each pair of
value and status the newest runs are a range that is read from its end; a page is the newest of those.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Select, String, desc, select, text, true, union_all

from services.chassis.ids import lowest_id_at, new_id
from services.tasks.models.run import LIVE, RunStatus
from services.tasks.models.run_filter import ENDED, RunFilter
from services.tasks.store import batch, matching
from services.tasks.store.matching import Span, instant_of
from services.tasks.store.tables import run_history, runs

_STATUS = String(16)
_h = run_history.c
# It is told of no value how common it is. It must not take one for rare, and read and sort all of its runs.
_in_order = text("SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true)")
_WINDOWS = (timedelta(days=31), timedelta(days=155))


def newest_ids(
    connection: Connection, wanted: RunFilter, *, limit: int, before_id: str | None = None, offset: int = 0
) -> list[str]:
    """Up to `limit` ids of the runs that pass a filter without text, newest first, after passing over `offset`."""
    reach = matching.span(wanted, before_id)
    found: list[str] = []
    if batch.is_postgres(connection):
        connection.execute(_in_order)
    for window in windows(reach) if batch.is_postgres(connection) else [reach]:
        found += _newest_within(connection, wanted, window, offset + limit - len(found))
        if len(found) == offset + limit:
            break
    return found[offset:]


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
        yield Span(start, bound)
        bound = start
    yield Span(reach.lowest, bound)


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
    driver = _driver(wanted)
    if driver is None and wanted.ended == ENDED:
        query = select(_h.id).where(*matching.values(wanted, run_history.c), *reach.conditions(_h))
        return query.order_by(_h.id.desc()).limit(limit), {}
    pairs = [(value, status.value) for value in _values(wanted, driver) for status in sorted(wanted.ended)]
    columns: batch.Columns = {"value": _h[driver].type if driver else _STATUS, "status": _STATUS}
    postgres = batch.is_postgres(connection)
    pair = batch.given(columns, postgres)
    newest = select(_h.id).where(
        *matching.values(wanted, _h, without=driver),
        *reach.conditions(_h),
        _h.status == pair.c.status,
    )
    if driver:
        newest = newest.where(_h[driver] == pair.c.value)
    newest = newest.order_by(_h.id.desc()).limit(limit)
    return _of_each(pair, newest, postgres), batch.rows(connection, columns, pairs)


def _of_each(pair: Any, newest: Select[Any], postgres: bool) -> Select[Any]:
    if postgres:
        each = newest.correlate(pair).lateral("newest")
        return select(each.c.id).select_from(pair.join(each, true()))
    found = run_history.alias("found")
    return select(found.c.id).select_from(pair.join(found, found.c.id.in_(newest.correlate(pair))))


def _driver(wanted: RunFilter) -> str | None:
    """The column that is filtered by and has the fewest runs of one value, usually."""
    for column, name in matching.VALUES.items():
        values = getattr(wanted, name)
        # The runs of no batch are no range of the index of batches.
        if values and not (column == "batch_id" and "" in values):
            return column
    return None


def _values(wanted: RunFilter, driver: str | None) -> list[str]:
    return sorted(set(getattr(wanted, matching.VALUES[driver]))) if driver else [""]
