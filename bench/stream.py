"""How many messages of a Redis Stream one replica publishes per second, on each engine.

Each is an event that one task waits for, so each makes a run. PostgreSQL is durable, as in production:

    PYTHONPATH=.:gen .venv/bin/python bench/stream.py [--engine sqlite|postgres] [--messages 20000]
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from bench.databases import empty_database
from services.chassis.database import Database
from services.chassis.ids import new_id
from services.chassis.wakeup import Wakeup
from services.tasks.service import SCHEMA
from services.tasks.stream import Source, StreamConsumer
from tests.integration.tasks.events import add_waiting
from tests.support.databases import context_url
from tests.support.valkey import GROUP, KEY, Stream, message, stream


async def measure(url: str, server: Stream, count: int) -> float:
    """Messages per second, from the first read to the last acknowledgement."""
    database = Database(url, schema=SCHEMA, pool_size=4)
    await database.transact(lambda connection, clock: add_waiting(connection, 1, "order.created"))
    for first in range(0, count, 1000):
        server.add(*map(message, range(first, min(first + 1000, count))))
    consumer = StreamConsumer(database, Source(server.url, KEY, GROUP, new_id()), Wakeup(), Wakeup())
    begun = time.perf_counter()
    while server.unread():
        await consumer.step()
    seconds = time.perf_counter() - begun
    await consumer.close()
    database.close()
    return count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["sqlite", "postgres"], action="append")
    parser.add_argument("--messages", type=int, default=20_000)
    arguments = parser.parse_args()
    for engine in arguments.engine or ["sqlite", "postgres"]:
        with (
            empty_database(engine) as url,
            tempfile.TemporaryDirectory() as directory,
            stream(Path(directory) / "valkey") as server,
        ):
            rate = asyncio.run(measure(context_url(url, SCHEMA), server, arguments.messages))
        print(f"{engine}: {rate:,.0f} messages/s")


if __name__ == "__main__":
    main()
