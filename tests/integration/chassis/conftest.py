"""A kiosk served in the test's own process, and databases with a table of notes."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.chassis.database import Database
from tests.integration.chassis import notes
from tests.integration.chassis.newsstand import Newsstand, open_newsstand

OpenDatabase = Callable[..., Database]


@pytest.fixture
async def newsstand(tmp_path: Path) -> AsyncIterator[Newsstand]:
    async with open_newsstand(tmp_path / "jwks.json") as opened:
        yield opened


@pytest.fixture(scope="session")
def _exporter() -> InMemorySpanExporter:
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.fixture
def spans(_exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    """The spans that ended since the test began."""
    _exporter.clear()
    return _exporter


@pytest.fixture
def open_database(empty_database_url: str) -> Iterator[OpenDatabase]:
    """Opens the test's database, as often as asked; all are closed at the end."""
    opened: list[Database] = []

    def open_it(url: str = empty_database_url, **options: Any) -> Database:
        database = Database(url, schema="public", **{"pool_size": 4, **options})
        opened.append(database)
        return database

    yield open_it
    for database in opened:
        database.close()


@pytest.fixture
def database(open_database: OpenDatabase) -> Database:
    """The test's database with its tables."""
    database = open_database()
    database.run(lambda connection, clock: notes.metadata.create_all(connection))
    return database
