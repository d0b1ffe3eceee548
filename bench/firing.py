"""How soon very many tasks that are due in the same second are queued, on each engine.

A scheduler of its own process fires them, and PostgreSQL is durable, as in production. What is aimed at is 5 seconds:

    PYTHONPATH=.:gen .venv/bin/python bench/firing.py [--engine sqlite|postgres] [--tasks 10000] [--expressions 1000]
"""

import argparse
import asyncio
import random
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from bench.databases import empty_database
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.tasks.service import SCHEMA
from services.tasks.store import tables
from tests.integration.tasks.schedules import add_tasks, scheduler_process
from tests.support.databases import context_url

# Adding the tasks, and starting the scheduler, takes less than this.
AHEAD = timedelta(seconds=20)


def expression(due: datetime) -> str:
    """One of many that fire at this instant."""
    day = random.choice((str(due.day), "*", f"{due.day},{random.randint(1, 28)}"))
    minute, hour = f"{due.minute},{random.randint(0, 59)}", f"{due.hour},{random.randint(0, 23)}"
    return f"{due.second} {minute} {hour} {day} * *"


async def measure(url: str, count: int, expressions: int) -> float:
    """The seconds from when all tasks are due until the last one's run is queued."""
    rows = Database(url, schema=SCHEMA, pool_size=2)
    due = datetime.now(UTC).replace(microsecond=0) + AHEAD

    def add(connection: Connection, clock: Clock) -> None:
        for _ in range(expressions):
            add_tasks(connection, count // expressions, expression(due), due, timezone="UTC")

    def queued(connection: Connection, clock: Clock) -> tuple[int, datetime]:
        return connection.execute(select(func.count()).select_from(tables.runs)).scalar_one(), clock.now()

    await rows.transact(add)
    with scheduler_process(url):
        while True:
            done, now = await rows.read(queued)
            if done == count // expressions * expressions:
                rows.close()
                return (now - due).total_seconds()
            # Seldom until it begins: counting takes from what is measured.
            await asyncio.sleep(0.1 if now >= due else 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["sqlite", "postgres"], action="append")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--expressions", type=int, default=1000)
    given = parser.parse_args()
    for engine in given.engine or ["postgres", "sqlite"]:
        with empty_database(engine) as url:
            seconds = asyncio.run(measure(context_url(url, "tasks"), given.tasks, given.expressions))
            print(f"{engine:9} {given.tasks} tasks due in the same second{'':6} {seconds:6.2f} s", flush=True)


if __name__ == "__main__":
    main()
