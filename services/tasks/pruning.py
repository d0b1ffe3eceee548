"""Deleting what is old in many short transactions, so that nobody has to wait for them."""

import logging
from dataclasses import replace
from datetime import datetime

from services.chassis import call
from services.chassis.database import Database, Work
from services.chassis.errors import ServiceError
from services.tasks.models.pruning import Age, Pruned
from services.tasks.operations import retention
from services.tasks.store import retention as store

_log = logging.getLogger(__name__)
# What a last batch and the answer may need of the time that the call has.
_RESERVED_SECONDS = 3.0


class Pruner:
    """Deletes batch by batch, and whole months at once where the database keeps them apart."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune(self, cutoff: datetime) -> Pruned:
        """Deletes the finished runs, decided occurrences and events that are older than `cutoff`.

        Incomplete when the time of the current call is over before.
        """
        pruned = await self._prune_months(cutoff) if self._database.is_postgres else Pruned()
        pruned += await self.prune_runs(cutoff)
        pruned += await self._until_complete(
            lambda connection, clock: retention.prune_occurrences(connection, cutoff, retention.BATCH, clock)
        )
        pruned += await self.prune_events(cutoff)
        pruned += await self._until_complete(
            lambda connection, clock: retention.prune_answers(connection, cutoff, retention.BATCH, clock)
        )
        return pruned + await self._until_complete(
            lambda connection, clock: retention.prune_files(connection, cutoff, retention.FILES_BATCH, clock)
        )

    async def prune_events(self, cutoff: datetime) -> Pruned:
        """Deletes the events that are older than `cutoff` and matched with all tasks, and their deliveries."""
        return await self._until_complete(
            lambda connection, clock: retention.prune_events(connection, cutoff, retention.BATCH, clock)
        )

    async def _until_complete(self, prune: Work[Pruned]) -> Pruned:
        """Deletes batch after batch until nothing is left, or the time is over."""
        pruned = Pruned()
        while not _is_late():
            batch = await self._database.transact(prune)
            pruned += replace(batch, complete=True)
            if batch.complete:
                return pruned
        return replace(pruned, complete=False)

    async def prune_runs(self, cutoff: datetime, age: Age = Age.FINISHED) -> Pruned:
        """Deletes the finished runs that are older than `cutoff`, and their steps."""
        pruned = Pruned()
        while not _is_late():
            batch = await self._database.transact(
                lambda connection, clock: retention.prune_batch(connection, cutoff, retention.BATCH, clock, age=age)
            )
            pruned += Pruned(batch.runs, batch.steps)
            if batch.complete:
                return pruned
        return pruned + Pruned(complete=False)

    async def _prune_months(self, cutoff: datetime) -> Pruned:
        """Runs go with their month, and then their steps: whenever this is broken off, no run is left without its own.

        Steps that were left are deleted the next time.
        """
        pruned = Pruned()
        try:
            while not _is_late():
                dropped = await self._database.transact(lambda connection, clock: store.drop_month(connection, cutoff))
                if dropped is None:
                    break
                pruned += Pruned(runs=dropped)
        except ServiceError as error:
            # Somebody reads for long: its runs are then deleted one by one.
            _log.warning("month_not_dropped", extra={"error": error.message})
        return pruned + await self._delete_steps_left()

    async def _delete_steps_left(self) -> Pruned:
        pruned, last = Pruned(), None
        while not _is_late():
            after = last
            deleted = await self._database.transact(
                lambda connection, clock, after=after: store.delete_steps_left(  # type: ignore[misc]
                    connection, after, retention.BATCH
                )
            )
            pruned, last = pruned + Pruned(steps=deleted.steps), deleted.last_run_id
            if last is None:
                break
        return pruned


def _is_late() -> bool:
    return call.seconds_left() < _RESERVED_SECONDS
