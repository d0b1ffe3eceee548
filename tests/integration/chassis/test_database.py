"""Transactions on both engines."""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import Connection, bindparam, insert, select, text
from sqlalchemy.exc import DBAPIError

from services.chassis import call, telemetry
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import DeadlineExceeded, InvalidArgument, NotFound
from tests.integration.chassis import notes
from tests.support.clock import ManualClock

only_postgres = pytest.mark.parametrize("engine", ["postgres"], indirect=True)
Rule = Callable[[Connection, Clock], Any]


def _write(number: int, words: str = "") -> Rule:
    return lambda connection, clock: notes.write(connection, number, words)


async def _is_set(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 5)


async def test_a_rule_that_returns_is_committed(database: Database) -> None:
    def rule(connection: Connection, clock: Clock) -> str:
        notes.write(connection, 1, "kept")
        return "answer"

    assert await database.transact(rule) == "answer"
    assert await database.read(notes.read) == {1: "kept"}


async def test_a_rule_that_raises_leaves_nothing(database: Database) -> None:
    def rule(connection: Connection, clock: Clock) -> None:
        notes.write(connection, 1)
        raise NotFound("changed my mind")

    with pytest.raises(NotFound, match="changed my mind"):
        await database.transact(rule)
    assert await database.read(notes.read) == {}


async def test_nobody_sees_what_is_not_committed(database: Database) -> None:
    written, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection, clock: Clock) -> None:
        notes.write(connection, 1)
        written.set()
        go_on.wait(5)

    writing = asyncio.create_task(database.transact(slow))
    await _is_set(written)
    assert await database.read(notes.read) == {}
    go_on.set()
    await writing
    assert await database.read(notes.read) == {1: ""}


async def test_transactions_that_change_the_same_row_lose_nothing(database: Database) -> None:
    await database.transact(_write(1, "0"))

    def increment(connection: Connection, clock: Clock) -> None:
        lock = select(notes.table.c.text).where(notes.table.c.id == 1).with_for_update()
        notes.rewrite(connection, 1, str(int(connection.execute(lock).scalar_one()) + 1))

    await asyncio.gather(*(database.transact(increment) for _ in range(20)))
    assert await database.read(notes.read) == {1: "20"}


def test_commands_run_without_an_event_loop(database: Database) -> None:
    database.run(_write(1, "kept"))
    assert database.run(notes.read) == {1: "kept"}


async def test_a_violated_constraint_is_told_without_what_was_written(database: Database) -> None:
    await database.transact(_write(1))
    with pytest.raises(DBAPIError) as failure:
        await database.transact(
            lambda connection, clock: connection.execute(
                insert(notes.table).values(id=1, text=bindparam("secret", "the combination"))
            )
        )
    assert "the combination" not in str(failure.value)


@only_postgres
async def test_a_value_that_does_not_fit_is_the_callers_fault(database: Database) -> None:
    with pytest.raises(InvalidArgument):
        await database.transact(_write(1, "longer than twenty characters"))


async def test_the_clock_stands_still_within_a_transaction(database: Database) -> None:
    def rule(connection: Connection, clock: Clock) -> tuple[datetime, datetime]:
        first = clock.now()
        until = time.monotonic() + 0.01
        while time.monotonic() < until:
            pass
        return first, clock.now()

    before = datetime.now(UTC)
    first, second = await database.transact(rule)
    assert first == second
    assert first.tzinfo is UTC
    assert abs(first - before) < timedelta(seconds=5)


@only_postgres
async def test_the_time_is_that_of_the_server_and_of_the_transaction(database: Database) -> None:
    def rule(connection: Connection, clock: Clock) -> tuple[datetime, datetime]:
        return clock.now(), connection.execute(text("SELECT transaction_timestamp()")).scalar_one()

    ours, theirs = await database.transact(rule)
    assert ours == theirs


async def test_a_clock_that_is_given_is_obeyed(open_database: Any) -> None:
    clock = ManualClock()
    database = open_database(clock=clock)
    assert await database.read(lambda connection, clock: clock.now()) == clock.now()
    clock.advance(days=400)
    assert await database.read(lambda connection, clock: clock.now()) == clock.now()


@only_postgres
async def test_a_statement_ends_at_the_deadline_of_the_call(database: Database) -> None:
    call.current.set(call.Call("/a/b", expires_at=time.monotonic() + 0.2))
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await database.transact(lambda connection, clock: connection.execute(text("SELECT pg_sleep(10)")))
    assert time.monotonic() - began < 3


@only_postgres
async def test_a_statement_outside_of_calls_may_take_thirty_seconds(database: Database) -> None:
    timeout = text("SHOW statement_timeout")
    assert await database.read(lambda connection, clock: connection.execute(timeout).scalar_one()) == "30s"


async def test_work_that_was_not_begun_in_time_is_never_done(open_database: Any, database: Database) -> None:
    one_thread = open_database(pool_size=1)
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection, clock: Clock) -> None:
        begun.set()
        go_on.wait(5)

    slowing = asyncio.create_task(one_thread.transact(slow))
    await _is_set(begun)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await one_thread.transact(_write(1))
    go_on.set()
    await slowing
    assert await database.read(notes.read) == {}


async def test_statements_are_spans_below_the_one_that_asks(database: Database, spans: InMemorySpanExporter) -> None:
    with telemetry.tracer().start_as_current_span("errand") as errand:
        await database.read(notes.read)
    selects = [span for span in spans.get_finished_spans() if span.name.startswith("SELECT") and span.attributes]
    assert any("notes" in str(span.attributes) for span in selects)
    assert {span.parent.span_id for span in selects if span.parent} == {errand.get_span_context().span_id}
