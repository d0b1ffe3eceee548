"""How long the history takes to answer: pages with each filter, counts, statistics and exports.

    PYTHONPATH=.:gen .venv/bin/python bench/history.py --runs 5000000 --engine postgres

Fills a scratch database with runs of the last twelve months, then prints the median and the 95th percentile of the
time in the database per page, and the rows per second and peak memory of exports. Nothing else may use the machine.
"""

import argparse
import random
import re
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
from sqlalchemy import Connection, select

from migrations import runner
from services.chassis.database import Database
from services.chassis.ids import id_at, lowest_id_at
from services.tasks.convert.run_line import run_line
from services.tasks.models.run import RunStatus
from services.tasks.models.run_filter import RunFilter
from services.tasks.store import export, history
from services.tasks.store import statistics as run_statistics
from tests.support.databases import PASSWORD_SECRET, context_url
from tests.support.postgres import Postgres

_TASKS = 200
_SPAN = timedelta(days=365)
_SAMPLE = 100_000
_TIMES = dict.fromkeys(("due_at", "started_at", "finished_at", "created_at", "updated_at"), "at")
_REPEATS = 20
_PAGE = 51
_RARE_TEXT = "xyzzy"
_NOW = datetime.now(UTC).replace(microsecond=0)
_AGENTS = [f"019a0000-0000-7000-8000-{number:012}" for number in range(20)]
_TASK_IDS = [f"019b0000-0000-7000-8000-{number:012}" for number in range(_TASKS)]
_WORDS = [
    "timeout",
    "refused",
    "upstream",
    "parse",
    "schema",
    "quota",
    "token",
    "gateway",
    "socket",
    "memory",
    "retry",
    "index",
    "payload",
    "digest",
]
_COLUMNS = (
    "id", "task_id", "task", "batch_id", "role", "agent_id", "created_by", "reported", "priority", "due_at",
    "started_at", "finished_at", "duration_ms", "attempt", "retries", "max_retries", "backoff_strategy",
    "concurrency_key", "payload", "traceparent", "error", "outputs_uri", "log_excerpt", "approver", "approval_note",
    "created_at", "updated_at", "status", "output",
)  # fmt: skip


def _run(chance: random.Random, number: int) -> tuple[Any, ...]:
    """One run out of a mix: 200 tasks, a few of them busy; 2 % failed; some with logs, batches, roles."""
    task = min(int(chance.expovariate(6) * _TASKS), _TASKS - 1)
    status = chance.choices(("succeeded", "failed", "skipped", "canceled"), (0.9699, 0.02, 0.01, 0.0001))[0]
    words = " ".join(chance.choices(_WORDS, k=8))
    error = {"class": "tool", "message": f"{words} {chance.getrandbits(64):016x}", "retryable": True, "step_id": "a"}
    log = f"step done: {words}, {chance.getrandbits(32)} rows" if chance.random() < 0.03 else ""
    return (
        id_at(_NOW), _TASK_IDS[task], f"nightly report {task:03}",
        f"nightly-{number // 100}" if number % 10 < 3 else "", f"role-{number % 5}" if chance.random() < 0.3 else "",
        _AGENTS[number % len(_AGENTS)], _AGENTS[0], False, 5, _NOW, _NOW, _NOW,
        chance.randrange(20, 90_000), 1, 0, 3, "exponential_jitter", "",
        '{"pipeline": [], "params": {"day": 1}}', f"00-{chance.getrandbits(128):032x}-00f067aa0ba902b7-01",
        orjson.dumps(error).decode() if status == "failed" else None, "", log, "", "", _NOW, _NOW, status,
        '{"rows": 17}',
    )  # fmt: skip


def _sample(total: int) -> list[tuple[Any, ...]]:
    chance = random.Random(7)
    return [_run(chance, number) for number in range(min(total, _SAMPLE))]


def _rare_runs() -> Iterator[tuple[Any, ...]]:
    """Failed runs with a word that no other has, all over the time."""
    chance = random.Random(8)
    for number in range(60):
        row = dict(zip(_COLUMNS, _run(chance, number), strict=True))
        row |= {"id": id_at(_NOW - _SPAN * (number + 0.5) / 60), "status": "failed"}
        error = {"class": "tool", "message": f"found no {_RARE_TEXT} here", "retryable": True, "step_id": "a"}
        row["error"] = orjson.dumps(error).decode()
        yield tuple(row.values())


def _load_postgres(url: str, total: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = tasks")
        _make_past_months(connection)
        indexes = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'run_history' AND indexname LIKE 'ix%'"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        connection.execute("CREATE TEMPORARY TABLE sample (LIKE run_history, number serial)")
        names = ", ".join(_COLUMNS)
        for table, rows in (("sample", iter(_sample(total))), ("run_history", _rare_runs())):
            with connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        start, step = _NOW - _SPAN, _SPAN / total
        for copied in range(0, total, _SAMPLE):
            connection.execute(
                f"INSERT INTO run_history ({names}) SELECT "
                "(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || "
                "substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid, "
                f"{', '.join(_TIMES.get(name, name) for name in _COLUMNS[1:])} "
                "FROM sample, LATERAL (SELECT %s::timestamptz + %s * (number + %s) AS at) AS times",
                [start, step, copied],
            )
        for _, definition in indexes:
            connection.execute(definition.replace(" ON ONLY ", " ON "))
        connection.execute("INSERT INTO run_names SELECT DISTINCT task FROM sample ON CONFLICT DO NOTHING")
        connection.execute("VACUUM (ANALYZE) run_history")


def _make_past_months(connection: psycopg.Connection[Any]) -> None:
    """The months that a service of that age would have made one after the other."""
    (first,) = connection.execute("SELECT min(month) FROM run_history_months()").fetchone() or (None,)
    months = [first]
    while months[0] > (_NOW - _SPAN).replace(tzinfo=None):
        months.insert(0, (months[0] - timedelta(days=1)).replace(day=1))
    bounds = [lowest_id_at(month.replace(tzinfo=UTC)) for month in months]
    connection.execute("ALTER TABLE run_history DETACH PARTITION run_history_before")
    for month, start, end in zip(months, bounds, bounds[1:], strict=False):
        name = f"run_history_{month:%Y_%m}"
        connection.execute(f"CREATE TABLE {name} PARTITION OF run_history FOR VALUES FROM ('{start}') TO ('{end}')")
    before = f"FOR VALUES FROM (MINVALUE) TO ('{bounds[0]}')"
    connection.execute(f"ALTER TABLE run_history ATTACH PARTITION run_history_before {before}")


def _load_sqlite(path: Path, total: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous = OFF", "cache_size = -400000", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'run_history' AND name LIKE 'ix%'"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    connection.execute("BEGIN")
    connection.execute("CREATE TEMPORARY TABLE sample AS SELECT * FROM run_history")
    names, places = ", ".join(_COLUMNS), ", ".join("?" * len(_COLUMNS))
    for table, rows in (("sample", iter(_sample(total))), ("run_history", _rare_runs())):
        values = [[_for_sqlite(value) for value in row] for row in rows]
        connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", values)
    start, step = _for_sqlite(_NOW - _SPAN), _SPAN / total / timedelta(microseconds=1)
    for copied in range(0, total, _SAMPLE):
        connection.execute(
            f"INSERT INTO run_history ({names}) SELECT "
            "printf('%012x7%03x8%015x', at / 1000, abs(random() % 4096), abs(random() % 1152921504606846976)), "
            f"{', '.join(_TIMES.get(name, name) for name in _COLUMNS[1:])} "
            "FROM (SELECT *, CAST(? + ? * (rowid + ?) AS INTEGER) AS at FROM sample)",
            [start, step, copied],
        )
    connection.execute("INSERT INTO run_names SELECT DISTINCT task FROM sample WHERE true ON CONFLICT DO NOTHING")
    for _, definition in indexes:
        connection.execute(definition)
    connection.execute("COMMIT")
    connection.close()


def _for_sqlite(value: Any) -> Any:
    if isinstance(value, datetime):
        return int(value.timestamp() * 1_000_000)
    if isinstance(value, str) and len(value) == 36 and value[14] == "7":
        return value.replace("-", "")
    return value


def _filters() -> dict[str, RunFilter]:
    of = RunFilter
    failed = frozenset({RunStatus.FAILED})
    common, rare = _TASK_IDS[0], _TASK_IDS[-30]
    return {
        "none": of(),
        "status succeeded": of(statuses=frozenset({RunStatus.SUCCEEDED})),
        "status failed": of(statuses=failed),
        "status canceled (rare)": of(statuses=frozenset({RunStatus.CANCELED})),
        "status failed, canceled, queued": of(statuses=failed | {RunStatus.CANCELED, RunStatus.QUEUED}),
        "task_id common": of(task_ids=(common,)),
        "task_id rare": of(task_ids=(rare,)),
        "task_id, 50 of them": of(task_ids=tuple(_TASK_IDS[:50])),
        "task (name)": of(tasks=("nightly report 003",)),
        "batch": of(batch_ids=("nightly-20",)),
        "agent": of(agent_ids=(_AGENTS[3],)),
        "agent and canceled": of(agent_ids=(_AGENTS[3],), statuses=frozenset({RunStatus.CANCELED})),
        "role": of(roles=("role-2",)),
        "role of the built-in worker": of(roles=("",)),
        "role, agent, failed": of(roles=("role-3",), agent_ids=(_AGENTS[3],), statuses=failed),
        "month in the middle": of(since=_NOW - timedelta(days=200), until=_NOW - timedelta(days=170)),
        "month, task, failed": of(
            since=_NOW - timedelta(days=200), until=_NOW - timedelta(days=170), task_ids=(common,), statuses=failed
        ),
        "text common": of(text="timeout"),
        "text in names": of(text="REPORT 01"),
        "text rare": of(text=_RARE_TEXT),
        "text nowhere": of(text="frobnicate"),
        "text hexadecimal": of(text="deadbee"),
        "text and failed": of(text="Quota Token", statuses=failed),
    }


def _positions(database: Database, wanted: RunFilter) -> dict[str, str | None]:
    """The ids before which the first page, one in the middle and the last one begin."""

    def oldest(connection: Connection, clock: Any) -> str | None:
        conditions = replace(wanted, text="")
        query = history.all_runs(connection, conditions).subquery()
        found = connection.execute(select(query.c.id).order_by(query.c.id).limit(1).offset(30)).scalar_one_or_none()
        return None if found is None else str(found)

    middle = lowest_id_at(_NOW - _SPAN / 2)
    return {"first": None, "deep": middle, "last": database.run(oldest)}


def _timed(database: Database, work: Callable[[Connection], Any], repeats: int) -> tuple[float, float, Any]:
    taken, answer = [], None
    for _ in range(repeats):

        def timed(connection: Connection, clock: Any) -> tuple[float, Any]:
            start = time.perf_counter()
            found = work(connection)
            return (time.perf_counter() - start) * 1000, found

        milliseconds, answer = database.run(timed)
        taken.append(milliseconds)
    return statistics.median(taken), statistics.quantiles(taken, n=20)[-1], answer


def _measure_pages(database: Database, only: str) -> None:
    print(f"{'filter':34} {'page':6} {'median ms':>10} {'p95 ms':>10} {'rows':>5}")
    for name, wanted in _filters().items():
        if only not in name:
            continue
        for page, before in _positions(database, wanted).items():
            found = _timed(
                database,
                lambda connection, wanted=wanted, before=before: history.list_runs(
                    connection, wanted, limit=_PAGE, before_id=before
                ),
                _REPEATS,
            )
            print(f"{name:34} {page:6} {found[0]:10.2f} {found[1]:10.2f} {len(found[2]):5}", flush=True)
        if not wanted.text:
            found = _timed(
                database, lambda connection, wanted=wanted: history.count_runs(connection, wanted, at_most=10_001), 10
            )
            print(f"{name:34} {'total':6} {found[0]:10.2f} {found[1]:10.2f} {found[2]:5}", flush=True)


def _measure_statistics(database: Database) -> None:
    for days in (7, 30, 365):
        since = _NOW - timedelta(days=days)
        for name, work in {
            f"statistics of a task, {days} days": lambda connection, since=since: run_statistics.run_stats(
                connection, since, _TASK_IDS[0]
            ),
            f"summary, {days} days": lambda connection, since=since: run_statistics.summary(connection, since),
        }.items():
            median, p95, _ = _timed(database, work, 3)
            print(f"{name:41} {median:10.2f} {p95:10.2f}", flush=True)


def _measure_exports(database: Database) -> None:
    for name, rows in (("csv", export.export_runs), ("ndjson", _ndjson)):

        def size(connection: Connection, clock: Any, rows: Any = rows) -> tuple[int, int]:
            sizes = [(len(chunk), chunk.count(b"\n")) for chunk in rows(connection, RunFilter(), limit=1_000_000)]
            return sum(length for length, _ in sizes), sum(lines for _, lines in sizes)

        before = forget_peak()
        start = time.perf_counter()
        length, lines = database.run(size)
        seconds = time.perf_counter() - start
        more = memory("VmHWM") - before
        print(f"{name}: {lines} rows, {length / 1e6:.0f} MB, {lines / seconds:.0f} rows/s, {more:.0f} MB of memory")


def forget_peak(process: int | str = "self") -> float:
    """Begins to note anew how much memory a process has at most; answers how much it has now."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
    return memory("VmRSS", process)


def memory(what: str, process: int | str = "self") -> float:
    """A line of Linux's account of a process, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(rf"^{what}:\s+(\d+) kB$", status, re.MULTILINE)[1]) / 1000  # type: ignore[index]


def _ndjson(connection: Connection, wanted: RunFilter, limit: int) -> Iterator[bytes]:
    return export.export_lines(connection, wanted, run_line, limit=limit)


@contextmanager
def filled_database(engine: str, directory: Path, total: int) -> Iterator[str]:
    """The administrator's URL of a database with so many runs."""
    start = time.perf_counter()
    if engine == "sqlite":
        path = directory / f"history-{total}"
        if not path.exists():
            runner.upgrade(f"sqlite:///{path}")
            _load_sqlite(path / "tasks.db", total)
        print(f"loaded in {time.perf_counter() - start:.0f} s")
        yield f"sqlite:///{path}"
        return
    server = Postgres()
    try:
        server.start()
        server.execute("CREATE DATABASE history")
        runner.upgrade(server.url("history"), secret=PASSWORD_SECRET)
        _load_postgres(server.url("history"), total)
        print(f"loaded in {time.perf_counter() - start:.0f} s")
        yield server.url("history")
    finally:
        server.remove()


def main() -> None:
    """Runs what was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--directory", type=Path, help="where SQLite's file is made, or kept from an earlier run")
    parser.add_argument("--only", default="", help="pages of filters whose name contains this, and nothing else")
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="bench-history-"))
    try:
        with filled_database(options.engine, directory, options.runs) as url:
            database = Database(context_url(url, "tasks"), schema="tasks", pool_size=1)
            _measure_pages(database, options.only)
            if not options.only:
                _measure_statistics(database)
                _measure_exports(database)
            database.close()
    finally:
        if options.directory is None:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()
