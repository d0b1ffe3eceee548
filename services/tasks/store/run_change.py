"""Which runs have changed, as triggers note it while somebody watches; see `run_changes` in tables.py."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    delete,
    func,
    literal_column,
    select,
    true,
    update,
)

from services.tasks.store.batch import is_postgres
from services.tasks.store.tables import run_changes, run_watch

# Every transaction before this one has ended, and what it has noted can be seen.
_FIRST_UNSETTLED: ColumnElement[int] = literal_column(
    "pg_snapshot_xmin(pg_current_snapshot())::text::bigint", BigInteger
)
_THIS_TRANSACTION: ColumnElement[int] = literal_column("pg_current_xact_id()::text::bigint", BigInteger)


def since(connection: Connection) -> int:
    """The position behind which nothing is missing."""
    return int(connection.execute(select(run_watch.c.since)).scalar_one())


def end(connection: Connection) -> int:
    """The last position up to which everything is known."""
    last = select(func.max(run_changes.c.position)).where(_is_settled(connection)).scalar_subquery()
    query = select(func.coalesce(last, run_watch.c.since)).select_from(run_watch)
    return int(connection.execute(query).scalar_one())


def behind(connection: Connection, position: int, limit: int) -> tuple[Sequence[Row[Any]], bool]:
    """The next changes behind a position, in order, and whether there are more; of each place all or none.

    They are up to `limit`, unless it were none then.
    """
    query = (
        select(run_changes)
        .where(run_changes.c.position > position, _is_settled(connection))
        .order_by(run_changes.c.position)
        .limit(limit + 1)
    )
    found = connection.execute(query).all()
    if len(found) <= limit:
        return found, False
    last = found[-1].position
    if whole := [change for change in found if change.position != last]:
        return whole, True
    return connection.execute(select(run_changes).where(run_changes.c.position == last)).all(), True


def hold_watch(connection: Connection) -> Row[Any]:
    """Until when what changes is noted, and since when; nobody else changes that before the transaction ends."""
    return connection.execute(select(run_watch).with_for_update()).one()


def watch_until(connection: Connection, until: datetime) -> None:
    connection.execute(update(run_watch).values(until=until))


def begin_anew(connection: Connection) -> int:
    """Forgets what was noted before; answers the position behind which nothing will be missing.

    So it is once no transaction is under way any more that was so at this moment: see `is_settled`.
    """
    connection.execute(delete(run_changes))
    here: ColumnElement[Any] = _THIS_TRANSACTION if is_postgres(connection) else run_watch.c.position
    begun = update(run_watch).values(since=here).returning(run_watch.c.since)
    return int(connection.execute(begun).scalar_one())


def is_settled(connection: Connection, position: int) -> bool:
    """Whether every transaction that is not behind this position has ended."""
    if not is_postgres(connection):
        return True
    return connection.execute(select(position < _FIRST_UNSETTLED)).scalar_one()


def keep_newest(connection: Connection, count: int) -> None:
    """Forgets all changes but so many."""
    newest_first = select(run_changes.c.position).order_by(run_changes.c.position.desc())
    last = connection.execute(newest_first.offset(count).limit(1)).scalar_one_or_none()
    if last is not None:
        connection.execute(delete(run_changes).where(run_changes.c.position <= last))
        connection.execute(update(run_watch).where(run_watch.c.since < last).values(since=last))


def _is_settled(connection: Connection) -> ColumnElement[bool]:
    return run_changes.c.position < _FIRST_UNSETTLED if is_postgres(connection) else true()
