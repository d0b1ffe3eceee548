"""The tasks service, served in the test's own process on each engine."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, update

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.tasks.config import Settings
from services.tasks.service import SCHEMA, build
from services.tasks.servicer import work
from services.tasks.store.tables import metadata, run_watch
from tests.integration.tasks.running import Tasks
from tests.support import databases
from tests.support.clock import ManualClock
from tests.support.grpc import Signer, serve_in_process
from tests.support.postgres import Postgres
from tests.support.valkey import Stream, stream

# All tests of this package use one database per engine, one after the other: faster than a copy for each.


@pytest.fixture(scope="package")
def sqlite_database(sqlite_template: Path) -> Iterator[str]:
    with databases.sqlite_directory(sqlite_template) as directory:
        yield f"sqlite:///{directory}"


@pytest.fixture(scope="package")
def postgres_database(postgres: Postgres, postgres_template: str) -> Iterator[str]:
    with databases.postgres_copy(postgres, postgres_template) as url:
        yield url


@pytest.fixture
def migrated_url(engine: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The service's URL of a migrated database on `engine`, empty now and emptied after the test."""
    url = databases.context_url(request.getfixturevalue(f"{engine}_database"), SCHEMA)
    yield url
    database = Database(url, schema=SCHEMA, pool_size=1)
    database.run(_empty)
    database.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def tasks(migrated_url: str, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Tasks]:
    signer = Signer.trusted_through(tmp_path / "jwks.json")
    (tmp_path / "cursor-key").write_bytes(b"a key that only tests sign with!")
    # Eight claimers at once fit, so that races are races.
    settings = Settings(
        database_url=migrated_url,
        jwks_file=tmp_path / "jwks.json",
        cursor_key_file=tmp_path / "cursor-key",
        pool_size=8,
        egress_allow="loopback",
    )
    service = build(settings, clock)
    async with serve_in_process(service.server) as address:
        running = Tasks(settings, service, address, clock, signer)
        yield running
        for channel in running.channels:
            await channel.close()
    await service.close()


@pytest.fixture
def hints_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes from waiting workers what finds runs that no hint tells of: that they look twice a second."""
    monkeypatch.setattr(work, "_POLL_SECONDS", 60.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Stream]:
    """A server with a stream of events, of the test's own."""
    with stream(tmp_path / "valkey") as running:
        yield running


def _empty(connection: Connection, clock: Clock) -> None:
    # The one row of `run_watch` is there from the beginning, and says that nobody watches.
    for table in reversed(metadata.sorted_tables):
        if table is not run_watch:
            connection.execute(delete(table))
    connection.execute(update(run_watch).values(until=datetime.fromtimestamp(0, UTC)))
