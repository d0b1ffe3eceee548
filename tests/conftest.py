"""What all tests share: databases on both engines."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support import databases
from tests.support.postgres import Postgres
from tests.support.sharing import Sharing


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        # Linux shares the processors out to sessions, and each process of each Baton is one of its own. A process of
        # the suite that shared one with all the others would stand still for seconds beside them.
        os.setsid()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing:
    return Sharing(config, log)


def pytest_sessionstart() -> None:
    if find_spec("baton") is None:
        pytest.exit("the stubs are missing: run `make protos`", returncode=1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The PostgreSQL server of this run. Who stops it starts it again."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    return databases.migrated_template(postgres)


@pytest.fixture(scope="session")
def sqlite_template() -> Iterator[Path]:
    with databases.sqlite_template() as directory:
        yield directory


@pytest.fixture(params=databases.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The database engine a test runs on; a test that uses it, or a database, runs on each."""
    name: str = request.param
    return name


@pytest.fixture
def database_url(engine: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The administrator's URL of a migrated, empty database on `engine`; `context_url` makes it a service's."""
    if engine == "sqlite":
        with databases.sqlite_directory(request.getfixturevalue("sqlite_template")) as directory:
            yield f"sqlite:///{directory}"
    else:
        server, template = request.getfixturevalue("postgres"), request.getfixturevalue("postgres_template")
        with databases.postgres_copy(server, template) as url:
            yield url


@pytest.fixture
def empty_database_url(engine: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The administrator's URL of a database on `engine` that was never migrated."""
    if engine == "sqlite":
        with databases.sqlite_directory() as directory:
            yield f"sqlite:///{directory}"
    else:
        with databases.postgres_database(request.getfixturevalue("postgres")) as url:
            yield url
