"""The loop that notices what is late."""

from services import metric_names
from services.chassis import telemetry
from services.chassis.database import Database
from services.workflows.operations.overdue import BATCH, note_overdue

_REST_SECONDS = 1.0


class Overdue:
    """Marks workflows that are past their deadline. Every replica runs it, and none waits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noticed = telemetry.meter().create_counter(
            metric_names.WORKFLOWS_OVERDUE, description="workflows whose state was not left in time"
        )

    async def step(self) -> float:
        """One batch, in one transaction; a second later the next, or at once when there may be more."""
        noticed = await self._database.transact(note_overdue)
        if noticed:
            self._noticed.add(noticed)
        return 0.0 if noticed == BATCH else _REST_SECONDS
