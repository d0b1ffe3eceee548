"""What is measured of agents and their sessions."""

from sqlalchemy import Connection, func, select

from services.sessions.store.tables import agents, sessions

OPEN = ("pending", "active", "paused")
DEAREST = 1000


def open_sessions(connection: Connection) -> dict[str, int]:
    """How many sessions that have not ended are in which status."""
    counted = select(sessions.c.status, func.count()).where(sessions.c.status.in_(OPEN)).group_by(sessions.c.status)
    return dict.fromkeys(OPEN, 0) | {row[0]: row[1] for row in connection.execute(counted)}


def costs(connection: Connection) -> dict[str, int]:
    """What agents have cost in all, in micro-dollars, by id: of those DEAREST ones that cost anything."""
    dearest = (
        select(agents.c.id, agents.c.cost_microusd)
        .where(agents.c.cost_microusd > 0)
        .order_by(agents.c.cost_microusd.desc())
        .limit(DEAREST)
    )
    return {str(row[0]): row[1] for row in connection.execute(dearest)}
