"""The loop that ends sessions whose time is over."""

import logging
from collections import Counter
from datetime import timedelta

from services import metric_names
from services.chassis import telemetry
from services.chassis.database import Database
from services.sessions.operations import session as operations

_REST_SECONDS = 1.0
_log = logging.getLogger(__name__)


class SessionExpiry:
    """Expires sessions that are idle, too old, or silent for `retention`. Every replica runs it, and none waits."""

    def __init__(self, database: Database, retention: timedelta | None) -> None:
        self._database = database
        self._retention = retention
        self._expired = telemetry.meter().create_counter(
            metric_names.SESSIONS_EXPIRED, description="sessions that expired, by reason"
        )

    async def step(self) -> float:
        """One batch, in one transaction; a second later the next, or at once when there may be more."""
        lapses = await self._database.transact(
            lambda connection, clock: operations.expire_sessions(connection, clock, self._retention)
        )
        for lapse, count in Counter(lapses).items():
            self._expired.add(count, {"reason": lapse.value})
        if lapses:
            _log.info("sessions_expired", extra={"sessions": len(lapses)})
        return 0.0 if len(lapses) == operations.EXPIRY_BATCH else _REST_SECONDS
