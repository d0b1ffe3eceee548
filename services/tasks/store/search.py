"""Runs by what is in their texts: names, log excerpts and messages of errors.

Names are few, so the matching ones are looked up first and filtered by. What else runs tell is found by an index of
all that is three long in it: on PostgreSQL of its bytes, a span of time after the other, the newest first; on SQLite
of its characters, in an index that stands in the order of ids.
"""

from dataclasses import replace
from datetime import timedelta
from itertools import chain
from typing import Any

from sqlalchemy import BigInteger, Connection, Select, String, and_, column, func, literal, select, table, text

from services.chassis.clock import EPOCH
from services.chassis.columns import Id
from services.tasks.models.run_filter import RunFilter
from services.tasks.store import matching, pages
from services.tasks.store.batch import is_postgres
from services.tasks.store.matching import Condition, Span
from services.tasks.store.tables import run_history, run_names, runs

# Of more names that match, the runs are looked for among the newest: such a text is a common one.
_MAX_NAMES = 100
# A text that is in every tenth of the runs that tell anything fills its page from so many, without an index.
_LOOKED_THROUGH = 500
_IDS_PER_MILLISECOND = 1 << 15
_h = run_history.c
_texts = table("run_texts", column("number", BigInteger), column("id", Id()))
_search = table("run_search", column("rowid", BigInteger))
_matches = text("run_search MATCH :words")


def newest_ids(
    connection: Connection, wanted: RunFilter, *, limit: int, before_id: str | None = None, offset: int = 0
) -> list[str]:
    """Up to `limit` ids of the runs that pass a filter with text, newest first, after passing over `offset`."""
    reach, count = matching.span(wanted, before_id), offset + limit
    # Live ones first: a run that ends meanwhile is found twice rather than never.
    found = set(_live_ids(connection, wanted, reach, count))
    found.update(_named_ids(connection, wanted, reach, count))
    told = _told_on_postgres if is_postgres(connection) else _told_on_sqlite
    found.update(told(connection, wanted, reach, count))
    return sorted(found, reverse=True)[offset:count]


def names_with(connection: Connection, sought: str, limit: int | None = None) -> list[str]:
    """The names of runs that have the text in them."""
    inside = matching.contains(run_names.c.task, sought)
    return list(connection.execute(select(run_names.c.task).where(inside).limit(limit)).scalars())


def condition(connection: Connection, sought: str) -> Condition:
    """That a finished run has the text: for reading all of them in one statement."""
    named = _h.task.in_(names_with(connection, sought))
    if is_postgres(connection):
        return named | (matching.tells(_h) & _has_trigrams(sought) & _is_told(sought))
    found = select(_texts.c.id).join(_search, _search.c.rowid == _texts.c.number)
    return named | _h.id.in_(found.where(_matches.bindparams(words=_quoted(sought))))


def _live_ids(connection: Connection, wanted: RunFilter, reach: Span, limit: int) -> list[str]:
    if not wanted.live:
        return []
    says = matching.says(runs.c, wanted.text)
    query = select(runs.c.id).where(*matching.live(wanted), *reach.conditions(runs.c), says)
    return list(connection.execute(query.order_by(runs.c.id.desc()).limit(limit)).scalars())


def _named_ids(connection: Connection, wanted: RunFilter, reach: Span, limit: int) -> list[str]:
    names = names_with(connection, wanted.text, _MAX_NAMES + 1)
    if len(names) > _MAX_NAMES:
        inside = matching.contains(_h.task, wanted.text)
        query = select(_h.id).where(*matching.ended(wanted), *reach.conditions(_h), inside)
        return list(connection.execute(query.order_by(_h.id.desc()).limit(limit)).scalars())
    chosen = tuple(name for name in names if not wanted.tasks or name in wanted.tasks)
    if not chosen:
        return []
    of_these = replace(wanted, text="", tasks=chosen, statuses=wanted.ended)
    return pages.newest_ids(connection, of_these, limit=limit, before_id=reach.bound)


def _told_on_postgres(connection: Connection, wanted: RunFilter, reach: Span, limit: int) -> list[str]:
    spans = pages.windows(reach)
    latest = next(spans)
    looked_at = connection.execute(_hits_among_newest(wanted, latest)).all()
    found: list[str] = [run_id for run_id, is_hit in looked_at if is_hit][:limit]
    if len(looked_at) == _LOOKED_THROUGH:
        spans = chain([latest._replace(bound=looked_at[-1].id)], spans)
    for span in spans:
        if len(found) == limit:
            break
        found += connection.execute(_indexed(wanted, span, limit - len(found))).scalars()
    return found


def _hits_among_newest(wanted: RunFilter, span: Span) -> Select[Any]:
    """The newest runs that tell anything, and whether each is a hit."""
    newest = select(run_history).where(matching.tells(_h), *span.conditions(_h))
    told = newest.order_by(_h.id.desc()).limit(_LOOKED_THROUGH).subquery()
    text = matching.contains(matching.told(told.c), wanted.text)
    return select(told.c.id, and_(text, *matching.ended(wanted, told.c))).order_by(told.c.id.desc())


def _indexed(wanted: RunFilter, window: Span, limit: int) -> Select[Any]:
    """What the index of trigrams finds, and that alone: it knows no order, so what it finds is sorted."""
    hits = select(run_history).where(
        matching.tells(_h), _has_trigrams(wanted.text), _is_told(wanted.text), *window.conditions(_h)
    )
    found = hits.cte("hits").prefix_with("MATERIALIZED", dialect="postgresql")
    return select(found.c.id).where(*matching.ended(wanted, found.c)).order_by(found.c.id.desc()).limit(limit)


def _has_trigrams(sought: str) -> Condition:
    indexed = func.trigrams(func.lower(matching.told(_h)))
    return indexed.bool_op("@>")(func.trigrams(func.lower(literal(sought, String))))


def _is_told(sought: str) -> Condition:
    return matching.contains(matching.told(_h), sought)


def _told_on_sqlite(connection: Connection, wanted: RunFilter, reach: Span, limit: int) -> list[str]:
    query = (
        select(_search.c.rowid, _texts.c.id)
        .join(_texts, _texts.c.number == _search.c.rowid)
        .join(run_history, _h.id == _texts.c.id)
        .where(_matches.bindparams(words=_quoted(wanted.text)), *matching.ended(wanted), *reach.conditions(_h))
        .order_by(_search.c.rowid.desc())
    )
    if reach.bound is not None:
        query = query.where(_search.c.rowid < _first_number(reach.bound) + _IDS_PER_MILLISECOND)
    if reach.lowest is not None:
        query = query.where(_search.c.rowid >= _first_number(reach.lowest))
    rows = connection.execute(query.limit(limit)).all()
    found = {row.id for row in rows}
    if len(rows) == limit:
        # Within a millisecond they are in no order, so the last one is taken whole.
        first = rows[-1].rowid // _IDS_PER_MILLISECOND * _IDS_PER_MILLISECOND
        last = _search.c.rowid.between(first, first + _IDS_PER_MILLISECOND - 1)
        found.update(row.id for row in connection.execute(query.where(last)))
    return sorted(found, reverse=True)[:limit]


def _quoted(sought: str) -> str:
    return '"' + sought.replace('"', '""') + '"'


def _first_number(run_id: str) -> int:
    """Of the texts of the millisecond in an id."""
    return (matching.instant_of(run_id) - EPOCH) // timedelta(milliseconds=1) * _IDS_PER_MILLISECOND
