"""Revision 0003 of sessions: agents and tokens in full, with those from before as they were."""

from typing import Any

import alembic.command
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from migrations import runner
from migrations.history import History
from migrations.runner import open_target

_SYSTEM, _WORKER = "00000000-0000-0000-0000-000000000001", "0198a000-0000-7000-8000-000000000001"
_TOKEN = "0198a000-0000-7000-8000-000000000002"


def _upgrade_to_0002(database_url: str) -> None:
    target = open_target(database_url)
    with target.locked():
        target.prepare(None)
        with target.connect("sessions") as connection:
            history = History("sessions")
            history.config.attributes["connection"] = connection
            alembic.command.upgrade(history.config, "0002")


def _stored(connection: Connection, uuid: str) -> str:
    return uuid.replace("-", "") if connection.dialect.name == "sqlite" else uuid


def _moment(connection: Connection) -> Any:
    return "0" if connection.dialect.name == "sqlite" else "to_timestamp(0)"


def _insert_as_0002_does(connection: Connection, agent_id: str, name: str) -> None:
    moment = _moment(connection)
    connection.execute(
        text(
            "INSERT INTO agents (id, name, scopes, created_at, updated_at, role) "
            f"VALUES (:id, :name, '[\"tasks:read\"]', {moment}, {moment}, 'planner')"
        ),
        {"id": _stored(connection, agent_id), "name": name},
    )


def _insert_token_as_0002_does(connection: Connection, token_id: str, key_id: str) -> None:
    moment = _moment(connection)
    connection.execute(
        text(
            "INSERT INTO tokens (id, key_id, agent_id, secret_hash, scopes, created_at, expires_at) "
            f"VALUES (:id, :key_id, :agent_id, :hash, '[\"tasks:read\"]', {moment}, {moment})"
        ),
        {
            "id": _stored(connection, token_id),
            "key_id": key_id,
            "agent_id": _stored(connection, _WORKER),
            "hash": b"h" * 32,
        },
    )


@pytest.fixture
def upgraded_url(empty_database_url: str) -> str:
    """A database with two agents and a token of the code before, brought up to date."""
    _upgrade_to_0002(empty_database_url)
    with open_target(empty_database_url).connect("sessions") as connection, connection.begin():
        _insert_as_0002_does(connection, _SYSTEM, "system")
        _insert_as_0002_does(connection, _WORKER, "worker")
        _insert_token_as_0002_does(connection, _TOKEN, "before")
    runner.upgrade(empty_database_url)
    return empty_database_url


def test_agents_and_tokens_of_the_code_before_are_as_they_were(upgraded_url: str) -> None:
    with open_target(upgraded_url).connect("sessions") as connection, connection.begin():
        agents = connection.execute(
            text(
                "SELECT name, role, status, version, archived_at, input_tokens, is_orchestrator FROM agents ORDER BY id"
            )
        ).all()
        assert [tuple(row) for row in agents] == [
            ("system", "planner", "idle", 1, None, 0, False),
            ("worker", "planner", "idle", 1, None, 0, False),
        ]
        token = connection.execute(text("SELECT key_id, kind, family_id, last_used_at FROM tokens")).one()
        assert tuple(token) == ("before", "minted", None, None)
        # A service that was not replaced yet goes on minting.
        _insert_token_as_0002_does(connection, _TOKEN.replace("0002", "0003"), "during")


def test_names_are_unique_among_agents_that_are_not_archived(upgraded_url: str) -> None:
    target = open_target(upgraded_url)
    with target.connect("sessions") as connection:
        with pytest.raises(IntegrityError), connection.begin():
            _insert_as_0002_does(connection, _TOKEN, "worker")
        with connection.begin():
            connection.execute(text(f"UPDATE agents SET archived_at = {_moment(connection)} WHERE name = 'worker'"))
            _insert_as_0002_does(connection, _TOKEN, "worker")


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("agents", "status = 'sleeping'"),
        ("tokens", "kind = 'golden'"),
        ("tokens", "kind = 'refresh'"),
    ],
)
def test_what_makes_no_sense_cannot_be_stored(upgraded_url: str, table: str, change: str) -> None:
    with open_target(upgraded_url).connect("sessions") as connection, pytest.raises(IntegrityError):
        connection.execute(text(f"UPDATE {table} SET {change}"))
