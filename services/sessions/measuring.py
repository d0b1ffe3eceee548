"""What is measured of agents and their sessions now and then, for metrics."""

from services import metric_names
from services.chassis import telemetry
from services.chassis.database import Database
from services.sessions.store import measure as store

_REST_SECONDS = 30.0


class Measuring:
    """Counts sessions that have not ended, and adds up what agents cost."""

    def __init__(self, database: Database) -> None:
        self._database = database
        meter = telemetry.meter()
        self._sessions = meter.create_gauge(
            metric_names.SESSIONS, description="sessions that have not ended, by status: pending, active or paused"
        )
        self._costs = meter.create_gauge(
            metric_names.AGENT_COST,
            unit="microusd",
            description=f"what an agent has cost in all, by agent: the {store.DEAREST} dearest",
        )

    async def step(self) -> float:
        """Measures; half a minute later again."""
        counts = await self._database.read(lambda connection, clock: store.open_sessions(connection))
        for status, count in counts.items():
            self._sessions.set(count, {"status": status})
        costs = await self._database.read(lambda connection, clock: store.costs(connection))
        for agent_id, cost in costs.items():
            self._costs.set(cost, {"agent_id": agent_id})
        return _REST_SECONDS
