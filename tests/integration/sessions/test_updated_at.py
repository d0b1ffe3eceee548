"""The database keeps `updated_at` right, whoever writes."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from services.chassis.clock import Clock, SystemClock
from services.chassis.ids import new_id
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions


async def test_a_change_by_hand_moves_the_time_too(sessions: Sessions) -> None:
    agent, other = await sessions.agent(), await sessions.agent()
    of = tables.agents.c.id

    def change(connection: Connection, clock: Clock) -> tuple[datetime, datetime]:
        connection.execute(update(tables.agents).where(of == agent.id).values(model="by hand"))
        rows = connection.execute(select(of, tables.agents.c.updated_at)).all()
        times = {row.id: row.updated_at for row in rows}
        return times[agent.id], times[other.id]

    moved, stayed = await sessions.database.transact(change)
    assert abs(moved - SystemClock().now()) < timedelta(seconds=30)
    assert stayed == sessions.clock.now()


async def test_a_time_that_is_given_stays(sessions: Sessions) -> None:
    agent = await sessions.agent()
    given = sessions.clock.now() + timedelta(hours=1, microseconds=1)

    def change(connection: Connection, clock: Clock) -> datetime:
        row = update(tables.agents).where(tables.agents.c.id == agent.id)
        connection.execute(row.values(model=new_id(), updated_at=given))
        return connection.execute(select(tables.agents.c.updated_at).where(tables.agents.c.id == agent.id)).scalar_one()

    assert await sessions.database.transact(change) == given
