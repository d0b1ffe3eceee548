"""The loop that takes back what nobody accepts."""

from services import metric_names
from services.chassis import telemetry
from services.chassis.database import Database
from services.workflows.operations.handoffs import BATCH, expire_handoffs

_REST_SECONDS = 1.0


class HandoffExpiry:
    """Ends offers whose time is over. Every replica runs it: each offer is ended once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._expired = telemetry.meter().create_counter(
            metric_names.HANDOFFS_EXPIRED, description="hand-offs that nobody has accepted in time"
        )

    async def step(self) -> float:
        """One batch, in one transaction; a second later the next, or at once when there may be more."""
        expired = await self._database.transact(expire_handoffs)
        if expired:
            self._expired.add(expired)
        return 0.0 if expired == BATCH else _REST_SECONDS
