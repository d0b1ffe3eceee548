"""Who asks for work: noted in memory by every call, and written now and then by a loop.

It is there so that people can be told that nobody works for a role. No call waits for it, or fails with it.
"""

import time

from services.chassis.database import Database
from services.tasks.store import worker as store

_REST_SECONDS = 1.0
_WRITE_AGAIN_AFTER_SECONDS = 10.0


class Attendance:
    """The workers that asked this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # When each worker, with its role, was written last, or will be by the next step.
        self._noted: dict[tuple[str, str], float] = {}
        self._unwritten: dict[tuple[str, str], str] = {}

    def note(self, worker_id: str, role: str, agent_id: str) -> None:
        """Notes that a worker asks; it is written every ten seconds at most."""
        now, key = time.monotonic(), (worker_id, role)
        if now - self._noted.get(key, -_WRITE_AGAIN_AFTER_SECONDS) >= _WRITE_AGAIN_AFTER_SECONDS:
            self._noted[key] = now
            self._unwritten[key] = agent_id

    async def step(self) -> float:
        """Writes what was noted; a second later the next."""
        unwritten, self._unwritten = self._unwritten, {}
        if unwritten:
            seen = [(worker_id, role, agent_id) for (worker_id, role), agent_id in unwritten.items()]
            await self._database.transact(lambda connection, clock: store.see_workers(connection, seen, clock.now()))
        long_ago = time.monotonic() - _WRITE_AGAIN_AFTER_SECONDS
        self._noted = {key: noted for key, noted in self._noted.items() if noted > long_ago}
        return _REST_SECONDS
