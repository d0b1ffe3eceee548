"""On PostgreSQL a service's login works with the rows of its own context, and that is all."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from migrations.contexts import CONTEXTS, expected
from tests.support.databases import context_url, postgres_copy
from tests.support.postgres import Postgres

_STRANGERS = [(login, owner) for login in CONTEXTS for owner in CONTEXTS if login != owner]


@pytest.fixture(scope="module")
def database_url(postgres: Postgres, postgres_template: str) -> Iterator[str]:
    """One database for all of these, which change nothing but rows."""
    with postgres_copy(postgres, postgres_template) as url:
        yield url


def _attempt(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _refuse(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement.encode())


@pytest.mark.parametrize(("login", "owner"), _STRANGERS)
def test_a_login_can_do_nothing_with_another_contexts_tables(database_url: str, login: str, owner: str) -> None:
    url = context_url(database_url, login)
    for table in (*expected(owner).tables, "alembic_version"):
        _refuse(
            url,
            f"SELECT count(*) FROM {owner}.{table}",
            f"INSERT INTO {owner}.{table} DEFAULT VALUES",
            f"DELETE FROM {owner}.{table}",
            f"TRUNCATE {owner}.{table}",
            f"ALTER TABLE {owner}.{table} ADD COLUMN mine text",
            f"DROP TABLE {owner}.{table}",
        )
    _refuse(url, f"CREATE TABLE {owner}.mine (id int)", f"DROP SCHEMA {owner} CASCADE")


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_login_reads_and_deletes_its_own_rows(database_url: str, context: str) -> None:
    url = context_url(database_url, context)
    for table in reversed(expected(context).sorted_tables):
        _attempt(url, f"SELECT count(*) FROM {context}.{table}", f"DELETE FROM {context}.{table}")


def test_a_login_writes_its_own_rows(database_url: str) -> None:
    url = context_url(database_url, "workflows")
    _attempt(
        url,
        "INSERT INTO workflows.templates VALUES ('mine', 1, '{}', now())",
        "UPDATE workflows.templates SET version = 2 WHERE name = 'mine'",
    )
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT version FROM workflows.templates WHERE name = 'mine'")
        assert found.fetchall() == [(2,)]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE {context}.mine (id int)",
        "CREATE TABLE public.mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "ALTER TABLE {context}.{table} ADD COLUMN mine text",
        "TRUNCATE {context}.{table}",
        "DROP TABLE {context}.{table}",
        "DROP SCHEMA {context} CASCADE",
        "UPDATE {context}.alembic_version SET version_num = '9999'",
    ],
)
def test_a_login_makes_and_changes_no_table(database_url: str, context: str, statement: str) -> None:
    table = next(iter(expected(context).tables))
    _refuse(context_url(database_url, context), statement.format(context=context, table=table))
