"""What others reach on the same PostgreSQL server: pgqueuer and procrastinate, each used as its documentation says.

`bench/runs.py --peers <python>` runs this with the Python of an environment that has them:

    uv venv peers
    uv pip install --python peers/bin/python pgqueuer procrastinate asyncpg uvloop "psycopg[binary,pool]"
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import procrastinate
import uvloop
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.applications import PgQueuer

CALLERS = 64
BATCH = 1000


async def rate(who: str, what: str, count: int, callers: int, one: Callable[[], Awaitable[Any]], each: int = 1) -> None:
    """Prints how many jobs are queued per second."""
    left = count // each

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await one()

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    print(f"{who:9} {what:34} {count / (time.perf_counter() - begun):10.0f} runs/s", flush=True)


class Arrivals:
    """Counts the jobs that were done."""

    def __init__(self) -> None:
        self.count = 0
        self.first = self.last = 0.0
        self.arrived, self.all_arrived = asyncio.Event(), asyncio.Event()
        self.awaited = 0

    def note(self) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.count += 1
        self.arrived.set()
        if self.count == self.awaited:
            self.all_arrived.set()


async def processed(who: str, arrivals: Arrivals, jobs: int) -> None:
    """Prints how many jobs per second were done, once all are."""
    arrivals.awaited = jobs
    await arrivals.all_arrived.wait()
    print(f"{who:9} {'process, no step':34} {jobs / (arrivals.last - arrivals.first):10.0f} runs/s", flush=True)


async def pickups(who: str, arrivals: Arrivals, enqueue: Callable[[], Awaitable[Any]], count: int) -> None:
    """Prints how long a job takes from the call that queues it to an idle worker."""
    taken = []
    for _ in range(count):
        await asyncio.sleep(0.02)
        arrivals.arrived.clear()
        begun = time.perf_counter()
        await enqueue()
        await arrivals.arrived.wait()
        taken.append((arrivals.last - begun) * 1000)
    taken.sort()
    p99 = taken[int(len(taken) * 0.99)]
    print(f"{who:9} {'idle pickup':34} {statistics.median(taken):7.1f} ms p50  {p99:7.1f} ms p99", flush=True)


async def pgqueuer(url: str, jobs: int, count: int) -> None:
    async with asyncpg.create_pool(url, min_size=2, max_size=8) as pool:
        driver = AsyncpgPoolDriver(pool)
        queries, arrivals = Queries(driver), Arrivals()
        await queries.install()
        await rate("pgqueuer", "enqueue, one caller", 1000, 1, lambda: queries.enqueue("noop", None))
        await rate("pgqueuer", f"enqueue, {CALLERS} callers", 5000, CALLERS, lambda: queries.enqueue("noop", None))
        await queries.clear_queue()

        async def batch() -> None:
            await queries.enqueue(["noop"] * BATCH, [None] * BATCH, [0] * BATCH)

        await rate("pgqueuer", f"enqueue, batches of {BATCH}", jobs, 1, batch, BATCH)
        app = PgQueuer(driver)

        @app.entrypoint("noop")
        async def noop(job: Any) -> None:
            arrivals.note()

        working = asyncio.create_task(app.run(batch_size=100))
        await processed("pgqueuer", arrivals, jobs)
        await pickups("pgqueuer", arrivals, lambda: queries.enqueue("noop", None), count)
        app.shutdown.set()
        await working


async def procrastinate_(url: str, jobs: int, count: int) -> None:
    app, arrivals = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url)), Arrivals()

    @app.task(name="noop")
    async def noop() -> None:
        arrivals.note()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await rate("procrast.", "enqueue, one caller", 1000, 1, noop.defer_async)
        await rate("procrast.", f"enqueue, {CALLERS} callers", 2000, CALLERS, noop.defer_async)
        async with app.connector.pool.connection() as connection:  # type: ignore[attr-defined]
            await connection.execute("TRUNCATE procrastinate_jobs CASCADE")
        few = max(jobs // 10, 2 * BATCH)

        async def batch() -> None:
            await noop.batch_defer_async(*[{} for _ in range(BATCH)])

        await rate("procrast.", f"enqueue, batches of {BATCH}", few, 1, batch, BATCH)
        working = asyncio.create_task(app.run_worker_async(concurrency=100, install_signal_handlers=False))
        await processed("procrast.", arrivals, few)
        await pickups("procrast.", arrivals, noop.defer_async, count)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def measure(url: str, jobs: int, count: int) -> None:
    await pgqueuer(url, jobs, count)
    await procrastinate_(url, jobs, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--pickups", type=int, default=300)
    given = parser.parse_args()
    uvloop.run(measure(given.url, given.runs, given.pickups))


if __name__ == "__main__":
    main()
