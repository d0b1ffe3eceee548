"""Pages of what has a position, read from indexes in their order, and no further than a page needs."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, select, text, union_all

# PostgreSQL is told of no value how common it is. It must not take one for rare, and read and sort all that has it.
_in_order = text(
    "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true), "
    "set_config('enable_incremental_sort', 'off', true)"
)


def first_rows(
    connection: Connection,
    queries: Sequence[Select[Any]],
    order: Sequence[str],
    limit: int,
    *,
    offset: int = 0,
    newest_first: bool = True,
) -> Sequence[Row[Any]]:
    """Up to `limit` rows of all the queries, by position, behind the first `offset`.

    `order` names the columns that end the index of each query, the position before all.
    """
    if not queries:
        return []
    if connection.dialect.name == "postgresql":
        connection.execute(_in_order)
    sides = [_ordered(query, order, newest_first).limit(limit + offset) for query in queries]
    if len(sides) == 1:
        return connection.execute(sides[0].offset(offset).limit(limit)).all()
    # Wrapped, because SQLite allows no ORDER BY inside of a compound SELECT.
    found = select(union_all(*(select(side.subquery()) for side in sides)).subquery())
    return connection.execute(_ordered(found, ("position",), newest_first).limit(limit).offset(offset)).all()


def _ordered(query: Select[Any], order: Sequence[str], newest_first: bool) -> Select[Any]:
    columns = [query.selected_columns[name] for name in order]
    return query.order_by(*(column.desc() if newest_first else column for column in columns))
