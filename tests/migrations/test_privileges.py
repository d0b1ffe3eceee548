"""Migrating as a user who is not a superuser, and the passwords of the logins."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from migrations import runner, verification
from migrations.contexts import CONTEXTS
from migrations.errors import MayNotPrepare
from migrations.logins import service_url
from tests.support.databases import PASSWORD_SECRET, context_url
from tests.support.postgres import Postgres

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

_ROLES = Path(__file__).parents[2] / "deploy" / "roles.sql"
_PASSWORD = "of-the-migrator"


@pytest.fixture
def migrator(postgres: Postgres) -> Iterator[str]:
    """A user who may do nothing yet."""
    postgres.execute(f"CREATE ROLE migrator LOGIN PASSWORD '{_PASSWORD}'")
    yield "migrator"
    postgres.execute("DROP ROLE migrator")


@pytest.fixture
def migrator_url(migrator: str, empty_database_url: str) -> str:
    return empty_database_url.replace("postgres@", f"{migrator}:{_PASSWORD}@")


def test_the_owner_of_the_database_migrates_if_it_may_create_roles(
    migrator_url: str, empty_database_url: str, postgres: Postgres
) -> None:
    name = empty_database_url.rsplit("/", 1)[1]
    postgres.execute(f"ALTER DATABASE {name} OWNER TO migrator", "ALTER ROLE migrator CREATEROLE")
    runner.upgrade(migrator_url, secret=PASSWORD_SECRET)
    assert verification.findings(migrator_url) == []
    with psycopg.connect(context_url(migrator_url, "tasks")) as connection:
        connection.execute("SELECT * FROM tasks.runs")


def test_who_may_not_is_told_of_the_file_that_does_it_and_then_can(
    migrator_url: str, empty_database_url: str, postgres: Postgres
) -> None:
    with pytest.raises(MayNotPrepare, match=r"deploy/roles\.sql") as refused:
        runner.upgrade(migrator_url)
    assert _PASSWORD not in str(refused.value)
    for _ in range(2):  # it can be run again
        arguments = ["-q", empty_database_url, "-v", "migrator=migrator", "-f", str(_ROLES)]
        subprocess.run([postgres.program("psql"), *arguments], check=True, timeout=30)
    runner.upgrade(migrator_url)
    assert verification.findings(migrator_url) == []


def test_a_login_needs_the_password_that_its_secret_gives(database_url: str) -> None:
    for context in CONTEXTS:
        with psycopg.connect(context_url(database_url, context)):
            pass
        for secret in (None, b"another secret altogether"):
            with pytest.raises(psycopg.OperationalError, match=r"password|no password"):
                psycopg.connect(service_url(database_url, context, secret))


def test_a_new_secret_changes_the_passwords(database_url: str) -> None:
    runner.upgrade(database_url, secret=b"another secret altogether")
    with psycopg.connect(service_url(database_url, "tasks", b"another secret altogether")):
        pass
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(context_url(database_url, "tasks"))
