"""Which workers asked for work lately."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, String, bindparam, delete, select, true
from sqlalchemy.dialects import postgresql, sqlite

from services.chassis.columns import Id, Timestamp
from services.tasks.store import batch
from services.tasks.store.batch import per_engine
from services.tasks.store.tables import workers

_SEEN: batch.Columns = {"id": Id(), "role": String(), "agent_id": Id()}


def see_workers(connection: Connection, seen: Iterable[tuple[str, str, str]], now: datetime) -> None:
    """Records that workers, each with its role and agent, asked for work."""
    # In one order, so that no two processes wait for each other.
    connection.execute(_see(connection), batch.rows(connection, _SEEN, sorted(seen)) | {"now": now})


def forget_workers(connection: Connection, before: datetime) -> None:
    """Forgets those who did not ask since then."""
    connection.execute(delete(workers).where(workers.c.seen_at < before))


@per_engine
def _see(for_postgres: bool) -> Any:
    given = batch.given(_SEEN, for_postgres)
    # Without a WHERE, SQLite takes the ON of the conflict for one of a join.
    source = select(*given.c, bindparam("now", type_=Timestamp())).where(true())
    statement = (postgresql if for_postgres else sqlite).insert(workers).from_select([*_SEEN, "seen_at"], source)
    changes = {name: statement.excluded[name] for name in ("agent_id", "seen_at")}
    return statement.on_conflict_do_update(index_elements=[workers.c.id, workers.c.role], set_=changes)
