"""The loop that answers with no where nobody has answered in time."""

import logging
from functools import partial

from sqlalchemy import Connection

from services import metric_names
from services.chassis import telemetry
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.wakeup import Wakeup
from services.tasks.operations import approval as operations

_REST_SECONDS = 1.0
_log = logging.getLogger(__name__)


def _expire(approval_id: str, connection: Connection, clock: Clock) -> set[str]:
    return operations.expire(connection, approval_id, clock)


class Expiry:
    """Lets approvals expire. Every replica runs it; an approval is answered once, whoever comes first."""

    def __init__(self, database: Database, work_wakeup: Wakeup) -> None:
        self._database = database
        self._work_wakeup = work_wakeup
        self._expired = telemetry.meter().create_counter(
            metric_names.APPROVALS_EXPIRED, description="approvals that nobody decided in time"
        )

    async def step(self) -> float:
        """One round; a second later the next. One transaction each, so that a locked run keeps no other waiting."""
        due = await self._database.read(operations.due_approvals)
        for approval_id in due:
            roles = await self._database.transact(partial(_expire, approval_id))
            self._expired.add(1)
            _log.info("approval_expired", extra={"approval_id": approval_id})
            if roles:
                self._work_wakeup.notify(*roles)
        return 0.0 if len(due) == operations.EXPIRY_BATCH else _REST_SECONDS
