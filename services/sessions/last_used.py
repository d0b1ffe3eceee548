"""When tokens were last used, noted now and then and not at every call."""

from datetime import datetime

from services.chassis.database import Database
from services.sessions.store import token as store

NOTED_SECONDS = 60.0


class LastUsed:
    """Remembers uses, and writes them down together. What was not written when the process dies is lost."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._uses: dict[str, datetime] = {}

    def note(self, token_id: str, used_at: datetime) -> None:
        """A token was used."""
        self._uses[token_id] = used_at

    async def write(self) -> float:
        """Writes down what was noted since the last time; a step for `loops.forever`."""
        uses, self._uses = self._uses, {}
        if uses:
            try:
                await self._database.transact(lambda connection, clock: store.note_uses(connection, uses))
            except BaseException:
                self._uses = uses | self._uses
                raise
        return NOTED_SECONDS
