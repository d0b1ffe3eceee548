"""Many new rows at once."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Connection, Insert, Table, Text, bindparam, cast, column, func, insert, select

from services.chassis.columns import Json


def insert_many(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Stores rows, each given with all its columns.

    PostgreSQL gets them as one JSON document, in less than half of the time that one set of parameters for each takes.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_insert_given(table), {"rows": orjson.dumps(rows).decode()})
    else:
        connection.execute(insert(table), rows)


@cache
def _insert_given(table: Table) -> Insert:
    document = cast(bindparam("rows", type_=Text()), Json)
    fields = [column(one.name, one.type) for one in table.c]
    given = func.jsonb_to_recordset(document).table_valued(*fields).render_derived("given", with_types=True)
    return insert(table).from_select([one.name for one in table.c], select(*given.c))
