"""The loop that delivers events to webhooks."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection

from services import metric_names
from services.chassis import telemetry
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.chassis.wakeup import Wakeup
from services.tasks.models.webhook import Answered, Attempt
from services.tasks.operations import webhook_delivery as operations
from services.tasks.operations.webhook_delivery import Outcome
from services.tasks.store.webhook_delivery import oldest_pending
from services.tasks.webhook_sender import WebhookSender

AT_ONCE = 20
"""How many requests one process makes at one time."""
EACH_AT_ONCE = 2
"""How many of these go to one webhook: so that a slow one leaves room for the others."""
_POLL_SECONDS = 0.25
_MEASURE_SECONDS = 15.0
_STOP_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Deliverer:
    """Leases what is due, sends it outside of any transaction, and records what came of it.

    Every replica has one. What it has leased when it is killed is due again once the leases have ended.
    """

    def __init__(self, database: Database, sender: WebhookSender) -> None:
        self._database = database
        self._sender = sender
        self._under_way: dict[asyncio.Task[None], str] = {}
        self._served: dict[str, float] = {}
        self._done = Wakeup()
        self._measures_at = 0.0
        self._attempts = telemetry.meter().create_counter(
            metric_names.WEBHOOK_ATTEMPTS, description="requests to webhooks, by what they mean for their delivery"
        )
        self._oldest = telemetry.meter().create_gauge(
            metric_names.WEBHOOK_OLDEST_PENDING, unit="s", description="age of the oldest delivery that is pending"
        )

    @property
    def under_way(self) -> int:
        """How many requests are being made."""
        return len(self._under_way)

    async def step(self) -> float:
        """One look for what is due; then it waits until a request has ended, or a quarter of a second."""
        ended = self._done.ticket()
        attempts = await self._claim()
        for attempt in attempts:
            task = asyncio.create_task(self._deliver(attempt))
            self._under_way[task] = attempt.webhook_id
            task.add_done_callback(self._end)
        await self._measure()
        if not attempts:
            await self._done.wait(ended, _POLL_SECONDS)
        return 0.0

    async def stop(self) -> None:
        """Waits a little for the requests that are being made, and breaks off the others: they are made again."""
        under_way = list(self._under_way)
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=_STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _claim(self) -> list[Attempt]:
        if len(self._under_way) >= AT_ONCE:
            return []
        shares = self._shares(await self._database.read(operations.due_webhooks))
        if not shares:
            return []
        return await self._database.transact(lambda connection, clock: operations.claim(connection, shares, clock))

    def _shares(self, due: Sequence[str]) -> dict[str, int]:
        """How much to lease of each webhook for which something is due: who has waited longest comes first."""
        self._served = {webhook_id: self._served.get(webhook_id, 0.0) for webhook_id in due}
        busy, room = Counter(self._under_way.values()), AT_ONCE - len(self._under_way)
        shares: dict[str, int] = {}
        for webhook_id in sorted(due, key=self._served.__getitem__):
            share = min(EACH_AT_ONCE - busy[webhook_id], room)
            if share > 0:
                shares[webhook_id] = share
                room -= share
                self._served[webhook_id] = time.monotonic()
        return shares

    async def _deliver(self, attempt: Attempt) -> None:
        try:
            answered = await self._answered(attempt)
            outcome = await self._database.transact(partial(_record, attempt, answered))
        except ServiceError as error:
            # It is made again once its lease has ended.
            _log.warning("webhook_attempt_not_recorded", extra=_fields(attempt) | {"error": error.message})
            return
        self._attempts.add(1, {"outcome": outcome.value})
        if outcome is Outcome.DEAD:
            _log.warning("webhook_delivery_dead", extra=_fields(attempt) | {"status": answered.status})

    async def _answered(self, attempt: Attempt) -> Answered:
        try:
            return await self._sender.send(attempt)
        except Exception as error:
            _log.exception("webhook_attempt_failed", extra=_fields(attempt))
            return Answered(None, f"the request could not be made: {type(error).__name__}")

    def _end(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._done.notify()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("webhook_attempt_failed", exc_info=error)

    async def _measure(self) -> None:
        if time.monotonic() >= self._measures_at:
            self._measures_at = time.monotonic() + _MEASURE_SECONDS
            self._oldest.set(await self._database.read(_age))


def _record(attempt: Attempt, answered: Answered, connection: Connection, clock: Clock) -> Outcome:
    return operations.record(connection, attempt, answered, clock)


def _age(connection: Connection, clock: Clock) -> float:
    """The seconds that the oldest pending delivery has waited; 0 when there is none."""
    since = oldest_pending(connection)
    return 0.0 if since is None else (clock.now() - since).total_seconds()


def _fields(attempt: Attempt) -> dict[str, object]:
    return {"webhook_id": attempt.webhook_id, "delivery_id": attempt.delivery_id, "attempt": attempt.number}
