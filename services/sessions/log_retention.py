"""The loop that deletes logs, prompts and chat that are too old."""

import time
from collections import Counter

from services import metric_names
from services.chassis import telemetry
from services.chassis.database import Database
from services.sessions.operations.log_retention import BATCH, KINDS, audit_pruning, prune_batch

MAX_DAYS = 36_500
# One step deletes for so long, and goes on in the next one.
_STEP_SECONDS = 20.0
_REST_SECONDS = 600.0


class LogRetention:
    """Keeps what is no older than `days`, and everything when that is 0."""

    def __init__(self, database: Database, days: int) -> None:
        self._database = database
        self._days = days
        self._pruned = telemetry.meter().create_counter(
            metric_names.LOGS_PRUNED, description="what retention has deleted, by kind"
        )

    async def step(self) -> float:
        """Deletes batch by batch; a step for `loops.forever`. What it has deleted is audited at its end."""
        if not self._days:
            return _REST_SECONDS
        pruned: Counter[str] = Counter()
        until = time.monotonic() + _STEP_SECONDS
        try:
            return await self._prune(pruned, until)
        finally:
            if pruned:
                await self._database.transact(
                    lambda connection, clock: audit_pruning(connection, pruned, self._days, clock)
                )

    async def _prune(self, pruned: Counter[str], until: float) -> float:
        for kind in KINDS:
            count = BATCH
            while count == BATCH:
                if time.monotonic() > until:
                    return 0.1
                count = await self._prune_batch(kind)
                if count:
                    pruned[kind] += count
        return _REST_SECONDS

    async def _prune_batch(self, kind: str) -> int:
        count = await self._database.transact(
            lambda connection, clock: prune_batch(connection, kind, self._days, clock)
        )
        self._pruned.add(count, {"kind": kind})
        return count
