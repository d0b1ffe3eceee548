"""What nobody needs to know of any more."""

from datetime import timedelta

from services.chassis.database import Database
from services.sessions.store import token as store

KEPT = timedelta(days=1)
"""How long an access or refresh token is listed after it has ended."""
_BATCH = 1000


class Pruning:
    """Deletes tokens that agents have obtained themselves, and that have ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def step(self) -> float:
        """Deletes up to a thousand of them; a step for `loops.forever`."""
        deleted = await self._database.transact(
            lambda connection, clock: store.delete_ended(connection, before=clock.now() - KEPT, limit=_BATCH)
        )
        return 0.1 if deleted == _BATCH else 600.0
