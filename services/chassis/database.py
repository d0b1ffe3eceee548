"""One transaction per rule, on PostgreSQL or SQLite.

Rules are synchronous and run on database threads; the event loop only waits for them. What differs between the
two engines stays in this module and in `columns`.
"""

import asyncio
import contextvars
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC
from itertools import islice
from typing import Any, TypeVar

import orjson
import psycopg
import sqlalchemy
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from sqlalchemy import URL, Connection, Engine, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.chassis import call
from services.chassis.clock import Clock, StoppedClock, SystemClock
from services.chassis.errors import DeadlineExceeded, InvalidArgument, Unavailable

_T = TypeVar("_T")
Work = Callable[[Connection, Clock], _T]
"""A rule: it gets the transaction's connection and a clock that stands still at the transaction's start."""

STATEMENT_TIMEOUT_SECONDS = 30.0
_ATTEMPTS = 5
_SERIALIZATION_FAILURE, _DEADLOCK, _QUERY_CANCELED = "40001", "40P01", "57014"
_begin = text("SELECT set_config('statement_timeout', :milliseconds, true), now()")


class Database:
    """The tables of one context.

    `url` is an SQLAlchemy URL (`postgresql://` means psycopg). On PostgreSQL, `schema` is the search path and
    `pool_size` the number of connections and threads. On SQLite there is one writing connection; writes wait for
    each other in this process and, for 5 s, for other processes. With a `clock` the time comes from there, else
    from the PostgreSQL server or, on SQLite, from the machine.
    """

    def __init__(self, url: str, *, schema: str, pool_size: int = 8, clock: Clock | None = None) -> None:
        parsed = make_url(url)
        self._clock = clock
        self.is_postgres = parsed.get_backend_name() == "postgresql"
        if self.is_postgres:
            self._writer = self._reader = _postgres_engine(parsed, schema, pool_size)
            self._write_threads = self._read_threads = ThreadPoolExecutor(pool_size, "database")
        else:
            self._writer = _sqlite_engine(parsed, "BEGIN IMMEDIATE", pool_size=1)
            self._reader = _sqlite_engine(parsed, "BEGIN", pool_size=pool_size)
            self._write_threads = ThreadPoolExecutor(1, "database-write")
            self._read_threads = ThreadPoolExecutor(pool_size, "database-read")

    async def transact(self, work: Work[_T]) -> _T:
        """Runs `work` in one transaction and commits it.

        A serialization failure or deadlock runs it again, up to five times. Raises Unavailable when the database
        cannot be reached, DeadlineExceeded when a statement outlives the current call.
        """
        return await self._attempts(self._writer, self._write_threads, work)

    async def read(self, work: Work[_T]) -> _T:
        """Like `transact`, for work that changes nothing."""
        return await self._attempts(self._reader, self._read_threads, work)

    async def stream(self, work: Callable[[Connection, Clock], Iterator[_T]]) -> AsyncIterator[_T]:
        """Runs the generator `work` in one transaction, item by item, no faster than they are taken."""
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()

        def items() -> Iterator[_T]:
            with self._transaction(self._reader) as (connection, clock):
                yield from work(connection, clock)

        iterator = items()

        def take() -> list[_T]:
            return list(islice(iterator, 1))

        try:
            while taken := await loop.run_in_executor(self._read_threads, context.run, take):
                yield taken[0]
        finally:
            await asyncio.shield(loop.run_in_executor(self._read_threads, context.run, _close, iterator))

    async def ping(self) -> None:
        """Raises Unavailable when the database cannot be reached."""
        await self.read(lambda connection, clock: connection.execute(text("SELECT 1")))

    def run(self, work: Work[_T]) -> _T:
        """Like `transact`, on this thread: for commands that have no event loop."""
        with self._transaction(self._writer) as (connection, clock):
            return work(connection, clock)

    def close(self) -> None:
        """Waits for running work and closes all connections."""
        for threads in (self._write_threads, self._read_threads):
            threads.shutdown(wait=True)
        for engine in (self._writer, self._reader):
            engine.dispose()

    async def _attempts(self, engine: Engine, threads: ThreadPoolExecutor, work: Work[_T]) -> _T:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                context = contextvars.copy_context()
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(threads, context.run, self._once, engine, work)
            except _TryAgain as lost:
                if attempt == _ATTEMPTS:
                    raise Unavailable("the database is too busy", retry_after=1) from lost
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))
        raise AssertionError("unreachable")

    def _once(self, engine: Engine, work: Work[_T]) -> _T:
        with self._transaction(engine) as (connection, clock):
            return work(connection, clock)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[tuple[Connection, Clock]]:
        try:
            with engine.begin() as connection:
                yield connection, self._transaction_clock(connection)
        except (DBAPIError, PoolTimeout) as error:
            raise _translated(error) from error

    def _transaction_clock(self, connection: Connection) -> Clock:
        if self.is_postgres:
            # The statement timeout and the server's time in one round trip.
            milliseconds = int(call.seconds_left(STATEMENT_TIMEOUT_SECONDS) * 1000) or 1
            now = connection.execute(_begin, {"milliseconds": str(milliseconds)}).one()[1]
            return StoppedClock(self._clock.now() if self._clock else now.astimezone(UTC))
        return StoppedClock((self._clock or SystemClock()).now())


class _TryAgain(Exception):
    """The transaction lost a race that it may win when it is run again."""


def _translated(error: DBAPIError | PoolTimeout) -> Exception:
    """What a caller is told of a driver's error, or the error itself when it is a fault of ours."""
    if isinstance(error, PoolTimeout):
        return Unavailable("all database connections are in use", reason="DATABASE_BUSY", retry_after=1)
    cause = error.orig
    state = getattr(cause, "sqlstate", None)
    if state in (_SERIALIZATION_FAILURE, _DEADLOCK) or _sqlite_busy(cause):
        return _TryAgain()
    if state == _QUERY_CANCELED:
        return DeadlineExceeded("the database did not answer in time")
    if isinstance(cause, psycopg.DataError):
        return InvalidArgument("a value does not fit the column it is for")
    if isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError | sqlite3.OperationalError):
        return _unreachable(cause)
    return error


def _unreachable(cause: Exception) -> Exception:
    # A missing table is a database that was not migrated (yet): as unready as one that is down.
    reachable = isinstance(cause, sqlite3.OperationalError) and not any(
        words in str(cause) for words in ("unable to open", "no such table", "disk I/O", "readonly database")
    )
    if reachable:
        return cause
    return Unavailable("the database cannot be reached right now", reason="DATABASE_UNAVAILABLE", retry_after=1)


def _sqlite_busy(cause: BaseException | None) -> bool:
    return isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


def _close(iterator: Iterator[Any]) -> None:
    iterator.close()  # type: ignore[attr-defined]


def _to_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _traced_engine(url: URL, **options: Any) -> Engine:
    """An engine whose statements are spans. The instrumentation replaces `sqlalchemy.create_engine` itself, once."""
    instrumentor = SQLAlchemyInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument()
    return sqlalchemy.create_engine(
        url, max_overflow=0, pool_timeout=5, json_serializer=_to_json, json_deserializer=orjson.loads, **options
    )


def _postgres_engine(url: URL, schema: str, pool_size: int) -> Engine:
    return _traced_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        connect_args={
            "connect_timeout": 3,
            "options": f"-c search_path={schema}",
            "application_name": f"baton-{schema}",
        },
    )


def _sqlite_engine(url: URL, begin: str, pool_size: int) -> Engine:
    engine = _traced_engine(
        url,
        pool_size=pool_size,
        connect_args={"check_same_thread": False, "timeout": 5},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
