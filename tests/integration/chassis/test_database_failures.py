"""Lost races, and databases that are not there."""

import asyncio
import socket
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DBAPIError

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import InvalidArgument, Unavailable
from tests.integration.chassis import notes
from tests.integration.chassis.conftest import OpenDatabase
from tests.support.postgres import Postgres
from tests.support.waiting import await_until, wait_until

only_postgres = pytest.mark.parametrize("engine", ["postgres"], indirect=True)
only_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
_PID = text("SELECT pg_backend_pid()")
_LOSE = text("DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$")
_REPEATABLE_READ = text(
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation TO ''repeatable read''', "
    "current_database()); END $$"
)


@only_postgres
async def test_who_loses_a_race_for_a_row_runs_again(database: Database, open_database: OpenDatabase) -> None:
    def prepare(connection: Connection, clock: Clock) -> None:
        notes.write(connection, 1, "0")
        connection.execute(_REPEATABLE_READ)

    await database.transact(prepare)
    both_read, attempts = threading.Barrier(2), []

    def increment(connection: Connection, clock: Clock) -> None:
        before = int(connection.execute(select(notes.table.c.text)).scalar_one())
        attempts.append(before)
        if before == 0:
            both_read.wait(5)
        notes.rewrite(connection, 1, str(before + 1))

    strict = open_database()
    await asyncio.gather(strict.transact(increment), strict.transact(increment))
    assert attempts == [0, 0, 1]
    assert await database.read(notes.read) == {1: "2"}


@pytest.mark.parametrize("values", [{"id": 1, "text": None}, {"id": "confidential", "text": ""}])
async def test_an_error_says_no_values(database: Database, values: dict[str, Any], spans: InMemorySpanExporter) -> None:
    statement = insert(notes.table).values(**values, extra="confidential")
    with pytest.raises((DBAPIError, InvalidArgument)) as raised:
        await database.transact(lambda connection, clock: connection.execute(statement))
    told = [*traceback.format_exception(raised.value), *(span.to_json() for span in spans.get_finished_spans())]
    assert any("INSERT" in part for part in told)
    assert not [part for part in told if "confidential" in part]


@only_postgres
async def test_a_deadlock_is_resolved_without_the_callers_noticing(database: Database) -> None:
    def prepare(connection: Connection, clock: Clock) -> None:
        notes.write(connection, 1, "")
        notes.write(connection, 2, "")

    await database.transact(prepare)
    both_locked, first_try = threading.Barrier(2), {"ada", "bob"}

    def write_both(name: str, *order: int) -> Callable[[Connection, Clock], None]:
        def rule(connection: Connection, clock: Clock) -> None:
            notes.rewrite(connection, order[0], name)
            if name in first_try:
                first_try.remove(name)
                both_locked.wait(5)
            notes.rewrite(connection, order[1], name)

        return rule

    await asyncio.gather(database.transact(write_both("ada", 1, 2)), database.transact(write_both("bob", 2, 1)))
    assert set((await database.read(notes.read)).values()) in ({"ada"}, {"bob"})


@only_postgres
async def test_a_race_that_is_always_lost_is_given_up(database: Database) -> None:
    attempts = []

    def lose(connection: Connection, clock: Clock) -> None:
        attempts.append(1)
        connection.execute(_LOSE)

    with pytest.raises(Unavailable) as failure:
        await database.transact(lose)
    assert failure.value.reason == "DATABASE_BUSY"
    with pytest.raises(Unavailable):
        await asyncio.to_thread(database.run, lose)
    assert len(attempts) == 10


@only_postgres
async def test_a_command_that_loses_a_race_runs_again(database: Database) -> None:
    attempts = []

    def lose_once(connection: Connection, clock: Clock) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            connection.execute(_LOSE)
        notes.write(connection, 1, "at last")

    await asyncio.to_thread(database.run, lose_once)
    assert await database.read(notes.read) == {1: "at last"}


@pytest.fixture
def locked(empty_database_url: str, database: Database) -> Iterator[sqlite3.Connection]:
    """The writer's lock of the SQLite database, in the hands of somebody else."""
    path = empty_database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


@only_sqlite
async def test_a_writer_waits_for_another_process(database: Database, locked: sqlite3.Connection) -> None:
    writing = asyncio.create_task(database.transact(lambda connection, clock: notes.write(connection, 1, "kept")))
    done, _ = await asyncio.wait([writing], timeout=0.2)
    assert not done
    assert await database.read(notes.read) == {}  # readers need not wait
    locked.execute("COMMIT")
    await writing
    assert await database.read(notes.read) == {1: "kept"}


@only_sqlite
async def test_a_writer_does_not_wait_for_ever(
    open_database: OpenDatabase, empty_database_url: str, locked: sqlite3.Connection
) -> None:
    impatient = open_database(f"{empty_database_url}?timeout=0.2")
    began = time.monotonic()
    with pytest.raises(Unavailable) as failure:
        await impatient.transact(lambda connection, clock: notes.write(connection, 1, "lost"))
    assert 0.15 < time.monotonic() - began < 2
    assert failure.value.reason == "DATABASE_BUSY"
    assert failure.value.retry_after == 1
    locked.execute("COMMIT")
    await impatient.transact(lambda connection, clock: notes.write(connection, 1, "kept"))
    assert await impatient.read(notes.read) == {1: "kept"}


@only_sqlite
async def test_a_file_that_cannot_be_opened_is_unavailable(open_database: OpenDatabase, tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/nowhere/database")
    with pytest.raises(Unavailable):
        await database.ping()
    (tmp_path / "nowhere").mkdir()
    await database.ping()


async def test_a_database_that_was_not_migrated_is_not_ready(open_database: OpenDatabase) -> None:
    database = open_database()
    await database.ping()
    with pytest.raises(Unavailable) as failure:
        await database.read(notes.read)
    assert failure.value.reason == "DATABASE_UNAVAILABLE"


def _nobody() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"postgresql://ada:4711@127.0.0.1:{listener.getsockname()[1]}/kiosk"


@only_postgres
async def test_a_server_that_refuses_is_unavailable_at_once(
    open_database: OpenDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable) as failure:
        await open_database(_nobody()).ping()
    assert time.monotonic() - began < 2
    assert failure.value.reason == "DATABASE_UNAVAILABLE"
    assert "127.0.0.1" not in failure.value.message
    (record,) = caplog.records
    assert record.message == "database_unavailable"
    assert "refused" in vars(record)["cause"]
    assert "4711" not in vars(record)["cause"]


@only_postgres
async def test_a_server_that_says_nothing_is_unavailable_within_seconds(open_database: OpenDatabase) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await open_database(f"postgresql://ada@127.0.0.1:{silent.getsockname()[1]}/kiosk").ping()
        assert time.monotonic() - began < 5


async def _all_connections(database: Database, rule: Callable[[Connection, Clock], Any]) -> list[Any]:
    """Runs the rule on all four connections at once."""
    together = threading.Barrier(4)

    def meet(connection: Connection, clock: Clock) -> Any:
        together.wait(5)
        return rule(connection, clock)

    return await asyncio.gather(*(database.read(meet) for _ in range(4)))


def _backends(connection: Connection, clock: Clock) -> Sequence[int]:
    return connection.execute(text("SELECT pid FROM pg_stat_activity")).scalars().all()


def _backend(connection: Connection, clock: Clock) -> int:
    pid: int = connection.execute(_PID).scalar_one()
    return pid


@only_postgres
async def test_connections_that_the_server_closed_are_replaced_without_anybody_noticing(
    database: Database, postgres: Postgres
) -> None:
    before = await _all_connections(database, _backend)
    assert len(set(before)) == 4
    postgres.execute(*(f"SELECT pg_terminate_backend({pid}, 5000)" for pid in before))
    after = await _all_connections(database, _backend)
    assert set(after).isdisjoint(before)
    assert await asyncio.to_thread(database.run, _backend) in after
    assert [row async for row in database.stream(lambda connection, clock: iter([1, 2]))] == [1, 2]


@only_postgres
async def test_a_stream_survives_that_its_connection_was_closed(database: Database, postgres: Postgres) -> None:
    postgres.execute(f"SELECT pg_terminate_backend({await database.read(_backend)}, 5000)")
    assert [row async for row in database.stream(lambda connection, clock: iter([1, 2]))] == [1, 2]


def _terminate(connection: Connection, postgres: Postgres) -> None:
    postgres.execute(f"SELECT pg_terminate_backend({connection.execute(_PID).scalar_one()}, 5000)")


def _breaking(postgres: Postgres, attempted: list[int], times: int) -> Callable[[Connection, Clock], None]:
    """Writes two notes, between which it loses its connection the first few times that it is run."""

    def rule(connection: Connection, clock: Clock) -> None:
        attempted.append(1)
        notes.write(connection, 1, "")
        if len(attempted) <= times:
            _terminate(connection, postgres)
        notes.write(connection, 2, "")

    return rule


@only_postgres
async def test_work_whose_connection_breaks_is_run_again(database: Database, postgres: Postgres) -> None:
    await database.transact(_breaking(postgres, [], times=1))
    assert await database.read(notes.read) == {1: "", 2: ""}


@only_postgres
async def test_work_that_breaks_connections_is_run_twice_at_most(database: Database, postgres: Postgres) -> None:
    attempted: list[int] = []
    with pytest.raises(Unavailable, match="cannot be reached"):
        await database.transact(_breaking(postgres, attempted, times=9))
    assert len(attempted) == 2
    assert await database.read(notes.read) == {}


@only_postgres
async def test_work_whose_connection_breaks_at_the_commit_is_not_run_again(
    database: Database, postgres: Postgres
) -> None:
    attempted = []

    def break_off(connection: Connection, clock: Clock) -> None:
        attempted.append(1)
        notes.write(connection, 1, "")
        _terminate(connection, postgres)

    with pytest.raises(Unavailable, match="cannot be reached"):
        await database.transact(break_off)
    assert len(attempted) == 1
    assert await database.read(notes.read) == {}


@only_postgres
async def test_an_outage_of_the_server_is_survived(database: Database, postgres: Postgres) -> None:
    await _all_connections(database, _backend)

    async def answers() -> bool:
        try:
            await database.ping()
        except Unavailable:
            return False
        return True

    with postgres.stopped():
        for _ in range(3):
            assert not await answers()
    await await_until(answers)
    await _all_connections(database, _backend)


@only_postgres
async def test_when_all_connections_are_taken_the_next_caller_waits(database: Database) -> None:
    go_on = threading.Event()
    working = [asyncio.create_task(database.read(lambda connection, clock: go_on.wait(5))) for _ in range(4)]
    waiting = asyncio.create_task(database.read(notes.read))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    go_on.set()
    assert await waiting == {}
    await asyncio.gather(*working)


def _standing_still(stands: threading.Event, wakes: threading.Event) -> Callable[[Connection, Clock], None]:
    """Adds to a note, and then is as quiet as a process that was stopped, until it is woken; and adds to it again."""

    def add(connection: Connection, letter: str) -> None:
        notes.rewrite(connection, 1, connection.execute(select(notes.table.c.text)).scalar_one() + letter)

    def rule(connection: Connection, clock: Clock) -> None:
        add(connection, "a")
        stands.set()
        wakes.wait(20)
        add(connection, "b")

    return rule


@only_postgres
async def test_what_a_process_that_stands_still_has_locked_is_free_in_seconds(
    database: Database, open_database: OpenDatabase
) -> None:
    await database.transact(lambda connection, clock: notes.write(connection, 1, ""))
    stands, wakes = threading.Event(), threading.Event()
    stopped = asyncio.create_task(open_database().transact(_standing_still(stands, wakes)))
    assert await asyncio.to_thread(stands.wait, 5)
    began = time.monotonic()
    await database.transact(lambda connection, clock: notes.rewrite(connection, 1, "x"))
    # A run is to be rescued five seconds after its lease at the latest.
    assert time.monotonic() - began < 4
    wakes.set()
    # Nothing is left of what it did before, and what it does now it does to what others have done meanwhile.
    await stopped
    assert await database.read(notes.read) == {1: "xab"}


@only_postgres
async def test_a_process_that_wakes_only_to_commit_is_told_that_it_did_not(
    database: Database, open_database: OpenDatabase
) -> None:
    def idle(connection: Connection, clock: Clock) -> None:
        notes.write(connection, 1, "lost")
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '10ms'"))
        pid = _backend(connection, clock)
        wait_until(lambda: pid not in database.run(_backends))

    with pytest.raises(Unavailable) as failure:
        await open_database(pool_size=1).transact(idle)
    assert failure.value.reason == "DATABASE_UNAVAILABLE"
    assert await database.read(notes.read) == {}


@only_postgres
async def test_a_process_that_takes_nothing_of_what_it_is_sent_is_gone_too(
    database: Database, open_database: OpenDatabase
) -> None:
    def clogged(connection: Connection, clock: Clock) -> None:
        pid, driver = _backend(connection, clock), connection.connection.driver_connection
        assert driver is not None
        much = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"
        with driver.cursor() as cursor, cursor.copy(much) as copy:
            wait_until(lambda: pid not in database.run(_backends))
            for _ in copy:
                pass

    with pytest.raises(Unavailable):
        await open_database(pool_size=1).transact(clogged)


@only_postgres
async def test_connections_notice_that_nobody_is_there(database: Database) -> None:
    def settings(connection: Connection, clock: Clock) -> list[Any]:
        names = ("idle_in_transaction_session_timeout", "tcp_user_timeout")
        return [connection.execute(text(f"SHOW {name}")).scalar_one() for name in names]

    assert await database.transact(settings) == ["3s", "3000"]
    # Who reads slowly is there.
    stream = database.stream(lambda connection, clock: iter(settings(connection, clock)))
    assert [setting async for setting in stream] == ["0", "0"]
    assert set(map(tuple, await _all_connections(database, settings))) == {("3s", "3000")}
