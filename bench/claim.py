"""What a claim costs, whatever else is in the queue: a long backlog of the future, and lines of concurrency keys.

    PYTHONPATH=.:gen .venv/bin/python -m bench.claim [--engine sqlite|postgres] [--backlog 1000000]

Prints the median and the 95th percentile of a claim of ten runs and of the report that ends them, in the database.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import Connection

from bench.databases import empty_database
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.ids import new_id
from services.tasks.models.run import NewRun, RunReport, Succeeded
from services.tasks.models.task import BackoffStrategy
from services.tasks.operations import work
from services.tasks.store import queue
from tests.support.databases import context_url

_BATCH = 5000
_CLAIM = 10
_CLAIMS = 200
_KEYS = 10_000
_WORKER, _TASK = new_id(), new_id()


def run(due_at: datetime, key: str = "") -> NewRun:
    """A run that does nothing."""
    return NewRun(
        id=new_id(),
        task_id=_TASK,
        task="bench",
        priority=5,
        due_at=due_at,
        payload={"pipeline": []},
        traceparent="",
        created_by=_WORKER,
        role="",
        batch_id="",
        concurrency_key=key,
        max_retries=0,
        backoff_strategy=BackoffStrategy.FIXED,
    )


def add(database: Database, count: int, ahead: timedelta = timedelta(), keys: list[str] | None = None) -> None:
    """Queues runs; the n-th has the n-th key."""
    for start in range(0, count, _BATCH):
        size = min(_BATCH, count - start)

        def queue_some(connection: Connection, clock: Clock, start: int = start, size: int = size) -> None:
            due_at = clock.now() + ahead
            new = [run(due_at, keys[start + number] if keys else "") for number in range(size)]
            queue.add_runs(connection, new, clock.now())

        database.run(queue_some)


def measure(database: Database, what: str) -> None:
    """Claims and ends runs, ten at a time."""
    taken: dict[str, list[float]] = {"claim": [], "report": []}
    for _ in range(_CLAIMS):
        begun = time.perf_counter()
        claimed = database.run(
            lambda connection, clock: work.lease_runs(
                connection, worker_id=_WORKER, agent_id=_WORKER, role="", limit=_CLAIM, clock=clock
            )
        )
        claimed_at = time.perf_counter()
        assert len(claimed.runs) == _CLAIM, f"{len(claimed.runs)} runs were claimed"
        reports = [RunReport(leased.lease, [], Succeeded({})) for leased in claimed.runs]
        database.run(lambda connection, clock: work.report_runs(connection, reports, clock))  # noqa: B023
        taken["claim"].append((claimed_at - begun) * 1000)
        taken["report"].append((time.perf_counter() - claimed_at) * 1000)
    for part, times in taken.items():
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"{what:44} {part:7} {statistics.median(times):7.2f} ms p50 {p95:7.2f} ms p95")


@contextmanager
def tables_of(url: str) -> Iterator[Database]:
    """The tables of the tasks service."""
    database = Database(context_url(url, "tasks"), schema="tasks", pool_size=2)
    yield database
    database.close()


def main() -> None:
    """Runs what was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), action="append")
    parser.add_argument("--backlog", type=int, default=1_000_000)
    options = parser.parse_args()
    for engine in options.engine or ("postgres", "sqlite"):
        with empty_database(engine) as url, tables_of(url) as database:
            print(engine)
            due = _CLAIM * _CLAIMS
            add(database, due)
            measure(database, "nothing else in the queue")
            add(database, options.backlog, timedelta(days=30))
            add(database, due)
            measure(database, f"{options.backlog} runs of the future")
        with empty_database(engine) as url, tables_of(url) as database:
            add(database, _KEYS, keys=[f"key {number}" for number in range(_KEYS)])
            measure(database, f"{_KEYS} keys with one run each")
            add(database, _KEYS, keys=["key saturated"] * _KEYS)
            measure(database, "and one with 10000 runs waiting")


if __name__ == "__main__":
    main()
