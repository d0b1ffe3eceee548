"""Long answers, item by item."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import Connection, select, text

from services.chassis import database as database_module
from services.chassis import telemetry
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import NotFound, Unavailable
from tests.integration.chassis import notes
from tests.integration.chassis.conftest import OpenDatabase

only_postgres = pytest.mark.parametrize("engine", ["postgres"], indirect=True)


@pytest.fixture
async def filled(database: Database) -> Database:
    def fill(connection: Connection, clock: Clock) -> None:
        for number in range(100):
            notes.write(connection, number, f"note {number}")

    await database.transact(fill)
    return database


def _numbers(connection: Connection, clock: Clock) -> Iterator[int]:
    ids = select(notes.table.c.id).order_by(notes.table.c.id)
    with connection.execution_options(yield_per=10).execute(ids) as result:
        yield from result.scalars()


class Tracked:
    """A stream that tells how far it is and when it was closed."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.made = 0
        self.closed = threading.Event()
        self._fails_at = fails_at

    def __call__(self, connection: Connection, clock: Clock) -> Iterator[int]:
        try:
            for number in _numbers(connection, clock):
                if number == self._fails_at:
                    raise NotFound("a page is missing")
                self.made += 1
                yield number
        finally:
            self.closed.set()


async def _is_idle(database: Database) -> None:
    """All of the database's connections can be had at once."""
    together = threading.Barrier(4)
    await asyncio.gather(*(database.read(lambda connection, clock: together.wait(5)) for _ in range(4)))


async def test_a_stream_brings_every_item_in_order(filled: Database) -> None:
    assert [number async for number in filled.stream(_numbers)] == list(range(100))
    await _is_idle(filled)


async def test_a_stream_of_nothing_ends(database: Database) -> None:
    assert [number async for number in database.stream(_numbers)] == []


async def test_items_are_made_no_faster_than_they_are_taken(filled: Database) -> None:
    work = Tracked()
    async with aclosing(filled.stream(work)) as stream:
        for taken in range(1, 6):
            await anext(stream)
            await filled.ping()
            assert work.made == taken


async def test_an_error_midway_reaches_the_reader_after_what_came_before(filled: Database) -> None:
    stream = filled.stream(Tracked(fails_at=5))
    assert [await anext(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(NotFound, match="a page is missing"):
        await anext(stream)
    await _is_idle(filled)


async def test_an_error_of_the_database_midway_is_one_of_ours(filled: Database) -> None:
    def broken(connection: Connection, clock: Clock) -> Iterator[int]:
        yield 1
        connection.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(Unavailable):
        async for _ in filled.stream(broken):
            pass
    await _is_idle(filled)


async def test_a_reader_who_stops_early_gives_the_connection_back(filled: Database) -> None:
    work = Tracked()
    async with aclosing(filled.stream(work)) as stream:
        assert await anext(stream) == 0
        assert not work.closed.is_set()
    assert work.closed.is_set()
    await _is_idle(filled)


async def test_a_reader_who_is_cancelled_while_an_item_is_made_gives_the_connection_back(filled: Database) -> None:
    making, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def slow(connection: Connection, clock: Clock) -> Iterator[int]:
        try:
            yield 1
            making.set()
            go_on.wait(5)
            yield 2
        finally:
            closed.set()

    async def read() -> None:
        async for _ in filled.stream(slow):
            pass

    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    reading = asyncio.create_task(read())
    assert await asyncio.to_thread(making.wait, 5)
    reading.cancel()
    done, _ = await asyncio.wait([reading], timeout=0.05)
    assert not done  # not before the thread is free
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert closed.is_set()
    await _is_idle(filled)
    assert complaints == []


async def test_a_reader_who_is_cancelled_twice_gives_the_connection_back(filled: Database) -> None:
    making, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection, clock: Clock) -> Iterator[int]:
        making.set()
        go_on.wait(5)
        yield 1

    async def read() -> None:
        async for _ in filled.stream(slow):
            pass

    reading = asyncio.create_task(read())
    assert await asyncio.to_thread(making.wait, 5)
    for _ in range(2):
        reading.cancel()
        await asyncio.wait([reading], timeout=0.02)
    assert reading.cancelled()
    go_on.set()
    await _is_idle(filled)


async def test_streams_leave_connections_for_other_calls(filled: Database) -> None:
    streams = [filled.stream(_numbers) for _ in range(2)]
    for stream in streams:
        await anext(stream)
    third = asyncio.create_task(anext(filled.stream(_numbers)))
    done, _ = await asyncio.wait([third], timeout=0.05)
    assert not done
    assert len(await filled.read(notes.read)) == 100
    for stream in streams:
        await stream.aclose()
    assert await third == 0


async def test_a_stream_that_finds_no_free_place_is_unavailable(
    filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_POOL_TIMEOUT_SECONDS", 0.05)
    streams = [filled.stream(_numbers) for _ in range(2)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(Unavailable) as failure:
        await anext(filled.stream(_numbers))
    assert failure.value.reason == "DATABASE_BUSY"
    for stream in streams:
        await stream.aclose()


@only_postgres
async def test_a_stream_may_take_longer_than_any_statement(database: Database) -> None:
    def timeout(connection: Connection, clock: Clock) -> Iterator[str]:
        yield connection.execute(text("SHOW statement_timeout")).scalar_one()

    assert [value async for value in database.stream(timeout)] == ["0"]


@only_postgres
async def test_a_lost_race_midway_is_unavailable(database: Database) -> None:
    def lose(connection: Connection, clock: Clock) -> Iterator[int]:
        yield 1
        connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$"))

    with pytest.raises(Unavailable):
        async for _ in database.stream(lose):
            pass


@only_postgres
async def test_a_copy_that_is_left_gives_its_connection_back(database: Database) -> None:
    def copied(connection: Connection, clock: Clock) -> Iterator[bytes]:
        driver = connection.connection.driver_connection
        assert driver is not None
        with driver.cursor() as cursor, cursor.copy("COPY (SELECT generate_series(1, 5000000)) TO STDOUT") as copy:
            yield from map(bytes, copy)

    async with aclosing(database.stream(copied)) as stream:
        assert await anext(stream) == b"1\n"
    await _is_idle(database)


async def test_statements_of_a_stream_are_spans_below_the_one_that_asks(
    filled: Database, spans: InMemorySpanExporter
) -> None:
    with telemetry.tracer().start_as_current_span("errand") as errand:
        async for _ in filled.stream(_numbers):
            pass
    selects = [span for span in spans.get_finished_spans() if "notes" in str(span.attributes)]
    assert selects
    assert {span.parent.span_id for span in selects} == {errand.get_span_context().span_id}


async def test_closing_the_database_waits_for_no_reader_that_left(open_database: OpenDatabase) -> None:
    database = open_database()
    async with aclosing(database.stream(lambda connection, clock: iter([1, 2, 3]))) as stream:
        await anext(stream)
    await asyncio.wait_for(asyncio.to_thread(database.close), 5)
