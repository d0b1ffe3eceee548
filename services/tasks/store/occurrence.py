"""What became of the nominal times of schedules."""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, String, select
from sqlalchemy.dialects import postgresql, sqlite

from services.chassis.columns import Id, Timestamp
from services.tasks.models.occurrence import Occurrence
from services.tasks.store import batch
from services.tasks.store.batch import Columns, per_engine
from services.tasks.store.tables import occurrences

_NEW: Columns = {
    "task_id": Id(),
    "scheduled_for": Timestamp(),
    "through": Timestamp(),
    "outcome": String(),
    "reason": String(),
    "run_id": Id(),
    "decided_at": Timestamp(),
}
_values_of = attrgetter(*_NEW)


def add_occurrences(connection: Connection, new: Sequence[Occurrence]) -> set[tuple[str, datetime]]:
    """Records the outcomes of nominal times, and answers of which, by task and time.

    One that has an outcome already keeps it and is not among them: it may never get a second.
    """
    if not new:
        return set()
    added = connection.execute(_add(connection), batch.rows(connection, _NEW, map(_values_of, new)))
    return {(row.task_id, row.scheduled_for) for row in added}


@per_engine
def _add(for_postgres: bool) -> Any:
    given = batch.given(_NEW, for_postgres)
    statement = (postgresql if for_postgres else sqlite).insert(occurrences)
    # SQLite needs a condition to tell the conflict's ON from that of a join.
    rows = select(*given.c).where(given.c.task_id.is_not(None))
    return (
        statement.from_select(list(_NEW), rows)
        .on_conflict_do_nothing()
        .returning(occurrences.c.task_id, occurrences.c.scheduled_for)
    )
