"""What an event costs, however many tasks wait for others; and what it costs a report that somebody may listen.

    PYTHONPATH=.:gen .venv/bin/python -m bench.events [--engine sqlite|postgres] [--tasks 10000]

Prints the median and the 95th percentile of publishing one event that matches one task, in the database, of a report
that ends a hundred runs, and of the look that such a report takes for who waits for it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from bench.claim import add, tables_of
from bench.databases import empty_database
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.ids import new_id
from services.tasks.models.event import NewEvent
from services.tasks.models.run import RunReport, Succeeded
from services.tasks.operations import event, work
from services.tasks.operations.dispatch import dispatch_pending
from services.tasks.store.topic import wanted
from tests.integration.tasks.events import add_waiting

_TIMES = 200
_REPORT = 100
_PUBLISHER = Caller(new_id())
_AGENT = new_id()
_ENDS = ("run.succeeded", "run.failed")


def publish(connection: Connection, clock: Clock) -> None:
    """One event, which is for one task."""
    new = NewEvent("order.created", {"total": 120}, "")
    done = event.publish_event(connection, new, _PUBLISHER, "", lambda task_id, caused_by: "", clock)
    assert len(done.runs) == 1


def dispatch(connection: Connection, clock: Clock) -> int:
    """One round of the dispatcher."""
    return len(dispatch_pending(connection, lambda task_id, caused_by: "", clock).runs)


def timed(what: str, database: Database, rounds: Callable[[], Callable[[Connection, Clock], Any]]) -> None:
    """How long one transaction takes; what leads to it is not counted."""
    taken = []
    for _ in range(_TIMES):
        work_ = rounds()
        begun = time.perf_counter()
        database.run(work_)
        taken.append((time.perf_counter() - begun) * 1000)
    p95 = statistics.quantiles(taken, n=20)[-1]
    print(f"{what:64} {statistics.median(taken):7.2f} ms p50 {p95:7.2f} ms p95", flush=True)


def ending(database: Database) -> Callable[[Connection, Clock], Any]:
    """The report of a hundred runs, which are leased before."""
    add(database, _REPORT)
    claimed = database.run(
        lambda connection, clock: work.lease_runs(
            connection, worker_id=_AGENT, agent_id=_AGENT, role="", limit=_REPORT, clock=clock
        )
    )
    reports = [RunReport(leased.lease, [], Succeeded({})) for leased in claimed.runs]
    return lambda connection, clock: work.report_runs(connection, reports, clock)


def measure(database: Database, tasks: int) -> None:
    """All of it, first with one task that waits, then with many more that wait for other things."""
    look: Callable[[Connection, Clock], Any] = lambda connection, clock: wanted(connection, _ENDS)  # noqa: E731
    database.run(lambda connection, clock: add_waiting(connection, 1, "order.*", role="nobody"))
    timed("publish, 1 task waits for events", database, lambda: publish)
    timed(f"report of {_REPORT} runs, nobody waits for their ends", database, lambda: ending(database))
    timed("of that, a transaction with the look alone", database, lambda: look)
    timed("an empty transaction", database, lambda: lambda connection, clock: None)
    for number in range(tasks // 2):
        database.run(lambda connection, clock, n=number: add_waiting(connection, 1, f"other.n{n}.*"))  # type: ignore[misc]
        database.run(lambda connection, clock, n=number: add_waiting(connection, 1, f"order.n{n}"))  # type: ignore[misc]
    timed(f"publish, {tasks} more wait for other topics", database, lambda: publish)
    timed(f"report of {_REPORT} runs, {tasks} wait for other topics", database, lambda: ending(database))
    database.run(lambda connection, clock: add_waiting(connection, 1, "run.*", role="nobody"))
    timed(f"report of {_REPORT} runs, one task waits for their ends", database, lambda: ending(database))
    begun, made = time.perf_counter(), 0
    while more := database.run(dispatch):
        made += more
    print(f"{'dispatch of what that has published':64} {made / (time.perf_counter() - begun):7.0f} runs/s", flush=True)


def main() -> None:
    """Runs what was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), action="append")
    parser.add_argument("--tasks", type=int, default=10_000)
    options = parser.parse_args()
    for engine in options.engine or ("postgres", "sqlite"):
        with empty_database(engine) as url, tables_of(url) as database:
            print(engine)
            measure(database, options.tasks)


if __name__ == "__main__":
    main()
