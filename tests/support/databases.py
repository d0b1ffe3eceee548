"""Databases for tests: migrated once per run on each engine, and copied for each test."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from migrations import access, runner
from migrations.contexts import CONTEXTS
from migrations.logins import login, service_url
from tests.support.postgres import Postgres
from tests.support.scratch import new_directory

ENGINES = ("sqlite", "postgres")
PASSWORD_SECRET = b"the passwords of test databases derive from this"
_TEMPLATE = "template_baton"
_numbers = itertools.count(1)


def context_url(database_url: str, context: str) -> str:
    """The URL that the service `context` connects with, password included, from an administrator's URL."""
    return service_url(database_url, context, PASSWORD_SECRET)


def migrated_template(postgres: Postgres) -> str:
    """Makes and migrates the database that others are copied from; answers its name."""
    postgres.execute(f"CREATE DATABASE {_TEMPLATE}")
    runner.upgrade(postgres.url(_TEMPLATE), secret=PASSWORD_SECRET)
    return _TEMPLATE


@contextmanager
def postgres_copy(postgres: Postgres, template: str) -> Iterator[str]:
    """A copy of `template` with logins of its own, as the superuser's URL; dropped at the end.

    Logins belong to the whole server and bear the database's name, so a copy comes without any.
    """
    with postgres_database(postgres, template=template) as url:
        name = url.rsplit("/", 1)[1]
        with psycopg.connect(url) as connection:
            access.create_schemas_and_logins(connection, name, PASSWORD_SECRET)
            access.grant(connection, name)
        yield url


@contextmanager
def postgres_database(postgres: Postgres, template: str = "template1") -> Iterator[str]:
    """A new database, as the superuser's URL; dropped at the end with the logins that it got meanwhile."""
    name = f"test_{next(_numbers)}"
    # Twice as fast as the default strategy where nothing is synced to disk.
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield postgres.url(name)
    finally:
        logins = (f"DROP ROLE IF EXISTS {login(name, context)}" for context in CONTEXTS)
        postgres.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", *logins)


@contextmanager
def sqlite_template() -> Iterator[Path]:
    """A migrated directory that others are copied from."""
    with sqlite_directory() as directory:
        runner.upgrade(f"sqlite:///{directory}")
        yield directory


@contextmanager
def sqlite_directory(template: Path | None = None) -> Iterator[Path]:
    """A directory for SQLite files that is not there yet, or a copy of `template`; deleted at the end."""
    parent = new_directory("sqlite")
    directory = parent / "database"
    try:
        if template is not None:
            shutil.copytree(template, directory)
        yield directory
    finally:
        shutil.rmtree(parent)
