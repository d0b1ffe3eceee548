"""One transaction per rule, on PostgreSQL or SQLite.

Rules are synchronous and run on database threads; the event loop only waits for them. What differs between the
two engines stays in this module, in `database_errors` and in `columns`.
"""

import asyncio
import contextvars
import math
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
import sqlalchemy
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from sqlalchemy import URL, Connection, Engine, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.chassis import call
from services.chassis.clock import Clock, StoppedClock, SystemClock
from services.chassis.database_errors import ATTEMPTS, TryAgain, rest, say_no_values, too_busy, translated
from services.chassis.threads import iterate

# For all engines, because only so it comes before the instrumentation of one, which makes a status of the message.
event.listen(Engine, "handle_error", say_no_values)

_T = TypeVar("_T")
Work = Callable[[Connection, Clock], _T]
"""A rule: it gets the transaction's connection and a clock that stands still at the transaction's start."""

STATEMENT_TIMEOUT_SECONDS = 30.0
_POOL_TIMEOUT_SECONDS = 5.0
# What a process that stands still has locked must be free again before anybody misses it: a run is rescued within 5 s
# of the end of its lease, of which the reaper may need one to look and one for its work. A rule waits for nothing but
# the database, so between two of its statements are milliseconds.
IDLE_TIMEOUT_SECONDS = 3
# The same the other way round: how long it takes to notice that the server's machine is gone.
_SERVER_LOST_SECONDS = 10
_begin = text("SELECT set_config('statement_timeout', :milliseconds, true), now()")
# The reader of a stream may be slow: then it is idle, or takes nothing of what is sent.
_begin_stream = text(
    "SELECT set_config('statement_timeout', '0', true), now(), "
    "set_config('idle_in_transaction_session_timeout', '0', true), set_config('tcp_user_timeout', '0', true)"
)


class Database:
    """The tables of one context.

    `url` is an SQLAlchemy URL (`postgresql://` means psycopg). On PostgreSQL, `schema` is the search path and
    `pool_size` the number of connections and threads. On SQLite there is one writing connection; writes wait for
    each other in this process and, for 5 s (`?timeout=` in the URL), for other processes. With a `clock` the time
    comes from there, else from the PostgreSQL server or, on SQLite, from the machine.
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
        # A stream keeps its connection for as long as its reader likes: some are kept free of streams.
        self._streams = asyncio.Semaphore(max(1, pool_size // 2))

    async def transact(self, work: Work[_T]) -> _T:
        """Runs `work` in one transaction and commits it.

        A serialization failure or deadlock runs it again, up to five times in all, and so does that it did nothing
        for 3 s, for PostgreSQL ends it then. A connection that breaks before the commit runs it again once. Raises
        Unavailable when the database cannot be reached, and when it broke at the commit, which may have happened. On
        PostgreSQL, raises DeadlineExceeded when a statement outlives the current call or, without one, 30 s; on
        SQLite nothing ends a statement or a transaction.
        """
        return await self._attempts(self._writer, self._write_threads, work)

    async def read(self, work: Work[_T]) -> _T:
        """Like `transact`, for work that changes nothing."""
        return await self._attempts(self._reader, self._read_threads, work)

    async def stream(self, work: Callable[[Connection, Clock], Iterator[_T]]) -> AsyncGenerator[_T, None]:
        """Runs the generator `work` in one transaction, item by item, no faster than they are taken.

        It may last as long as the current call. Half of the connections at most are in use for streams; raises
        Unavailable when none of these becomes free within 5 s. A lost race, or a lost connection, is Unavailable at
        once. It should lock nothing: while nobody takes its items, nothing ends it.
        """

        def items() -> Generator[_T, None, None]:
            try:
                with self._transaction(self._reader, statement_timeout=math.inf) as (connection, clock):
                    yield from work(connection, clock)
            except TryAgain as lost:
                raise lost.error from lost

        async with self._stream_slot(), aclosing(iterate(items(), self._read_threads)) as taken:
            async for item in taken:
                yield item

    async def ping(self) -> None:
        """Raises Unavailable when the database cannot be reached."""
        # Taken whole: a result that left its thread would be closed while the next transaction uses its connection.
        await self.read(lambda connection, clock: connection.execute(text("SELECT 1")).scalar_one())

    def run(self, work: Work[_T]) -> _T:
        """Like `transact`, on this thread: for commands that have no event loop."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._once(self._writer, work)
            except TryAgain as lost:
                time.sleep(rest(attempt, lost))
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Waits for running work and closes all connections."""
        for threads in (self._write_threads, self._read_threads):
            threads.shutdown(wait=True)
        for engine in (self._writer, self._reader):
            engine.dispose()

    async def _attempts(self, engine: Engine, threads: ThreadPoolExecutor, work: Work[_T]) -> _T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                context = contextvars.copy_context()
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(threads, context.run, self._once, engine, work)
            except TryAgain as lost:
                await asyncio.sleep(rest(attempt, lost))
        raise AssertionError("unreachable")

    def _once(self, engine: Engine, work: Work[_T]) -> _T:
        with self._transaction(engine) as (connection, clock):
            return work(connection, clock)

    @asynccontextmanager
    async def _stream_slot(self) -> AsyncGenerator[None, None]:
        try:
            await asyncio.wait_for(self._streams.acquire(), _POOL_TIMEOUT_SECONDS)
        except TimeoutError:
            raise too_busy() from None
        try:
            yield
        finally:
            self._streams.release()

    @contextmanager
    def _transaction(
        self, engine: Engine, statement_timeout: float = STATEMENT_TIMEOUT_SECONDS
    ) -> Iterator[tuple[Connection, Clock]]:
        committing = False
        try:
            with engine.connect() as connection:
                yield connection, self._begin(connection, statement_timeout)
                committing = True
                connection.commit()
        except (DBAPIError, PoolTimeout) as error:
            raise translated(error, committing=committing) from error

    def _begin(self, connection: Connection, statement_timeout: float) -> Clock:
        if self.is_postgres:
            now = _begin_on_postgres(connection, call.seconds_left(statement_timeout))
            return StoppedClock(self._clock.now() if self._clock else now.astimezone(UTC))
        connection.begin()
        return StoppedClock((self._clock or SystemClock()).now())


def _begin_on_postgres(connection: Connection, statement_timeout: float) -> datetime:
    """Sets the statement timeout and asks for the server's time, in one round trip."""
    if statement_timeout == math.inf:
        begin = _begin_stream
    else:
        begin = _begin.bindparams(milliseconds=str(max(1, int(statement_timeout * 1000))))
    try:
        now: datetime = connection.execute(begin).one()[1]
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        # The server closed it since it was last used. Nothing has happened yet, and this brings another one.
        connection.rollback()
        now = connection.execute(begin).one()[1]
    return now


def _to_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _from_json(stored: Any) -> Any:
    # SQLite keeps a lone number as a number.
    return stored if isinstance(stored, int | float) else orjson.loads(stored)


def _traced_engine(url: URL, **options: Any) -> Engine:
    """An engine whose statements are spans, and whose errors do not repeat what the statements were given.

    The instrumentation replaces `sqlalchemy.create_engine` itself, once.
    """
    instrumentor = SQLAlchemyInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument()
    return sqlalchemy.create_engine(
        url,
        max_overflow=0,
        pool_timeout=_POOL_TIMEOUT_SECONDS,
        hide_parameters=True,
        json_serializer=_to_json,
        json_deserializer=_from_json,
        **options,
    )


# The one is for a process that is waited for, the other for one that does not take what it is sent.
_LET_GO = " ".join(
    f"-c {name}={IDLE_TIMEOUT_SECONDS * 1000}" for name in ("idle_in_transaction_session_timeout", "tcp_user_timeout")
)


def _postgres_engine(url: URL, schema: str, pool_size: int) -> Engine:
    return _traced_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        connect_args={
            "connect_timeout": 3,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "tcp_user_timeout": _SERVER_LOST_SECONDS * 1000,
            # In other zones the first and last days of the calendar cannot be read.
            "options": f"-c search_path={schema} -c TimeZone=UTC {_LET_GO}",
            "application_name": f"baton-{schema}",
        },
    )


def _sqlite_engine(url: URL, begin: str, pool_size: int) -> Engine:
    engine = _traced_engine(url, pool_size=pool_size, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
