"""The daily loops: the history's coming months are made, and what is too old is deleted."""

import logging
from datetime import datetime

from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.tasks.models.pruning import Pruned
from services.tasks.operations import retention
from services.tasks.pruning import Pruner
from services.tasks.store import months

_log = logging.getLogger(__name__)
_DAY_SECONDS = 86_400.0
_MONTHS_AHEAD = 2
_ACTOR = "baton.retention"


class MonthMaker:
    """Makes the partitions of the months to come. When it fails, what happens then still finds a place."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def step(self) -> float:
        """One look; the next one a day later."""
        made = await self._database.transact(lambda connection, clock: months.make_months(connection, _MONTHS_AHEAD))
        if made:
            _log.info("months_made", extra={"months": made})
        return _DAY_SECONDS


class Retention:
    """Deletes finished runs, their steps, decided occurrences and events that are older than so many days."""

    def __init__(self, database: Database, days: int) -> None:
        self._database = database
        self._pruner = Pruner(database)
        self._days = days

    async def step(self) -> float:
        """One look: says how much is too old, then deletes it; the next one a day later."""
        cutoff, due = await self._database.read(self._look)
        if not (due.runs or due.occurrences or due.events):
            return _DAY_SECONDS
        _log.info("retention_due", extra=_fields(cutoff, due))
        pruned = await self._pruner.prune(cutoff)
        await self._database.transact(
            lambda connection, clock: retention.audit_pruning(connection, cutoff, pruned, _ACTOR, "", clock)
        )
        _log.info("retention_done", extra=_fields(cutoff, pruned))
        return _DAY_SECONDS

    def _look(self, connection: Connection, clock: Clock) -> tuple[datetime, Pruned]:
        cutoff = retention.days_ago(self._days, clock)
        return cutoff, retention.count_prunable(connection, cutoff)


def _fields(cutoff: datetime, pruned: Pruned) -> dict[str, object]:
    return {
        "cutoff": cutoff.isoformat(),
        "runs": pruned.runs,
        "steps": pruned.steps,
        "occurrences": pruned.occurrences,
        "events": pruned.events,
    }
