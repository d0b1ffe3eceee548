"""Revisions 0005 and 0008 of tasks: what an earlier Baton stored is all there afterwards, and works as before."""

from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from migrations import runner
from migrations.history import History
from migrations.runner import open_target

_TASK, _OWNER = (f"0198a000-0000-7000-8000-00000000000{digit}" for digit in range(2))
_CONTEXTS = ("sessions", "tasks", "workflows")
_COLUMNS = (
    "id, title, description, schedule_kind, schedule_expr, schedule_anchor, timezone, payload, priority, dedupe_key, "
    "dedupe_window_seconds, max_retries, backoff_strategy, concurrency_key, misfire, overlap, role, created_by, "
    "status, created_at, updated_at"
)


def _upgrade_to_before(database_url: str) -> None:
    target = open_target(database_url)
    with target.locked():
        target.prepare(None)
        for context in _CONTEXTS:
            with target.connect(context) as connection:
                history = History(context)
                history.config.attributes["connection"] = connection
                command.upgrade(history.config, "0002" if context == "tasks" else "head")


def _add_task(connection: Connection, task_id: str, title: str, kind: str = "manual") -> None:
    sqlite = connection.dialect.name == "sqlite"
    moment = "0" if sqlite else "now()"
    task_id, owner = (value.replace("-", "") if sqlite else value for value in (task_id, _OWNER))
    values = (
        f"'{task_id}', '{title}', '', '{kind}', '', {moment}, 'UTC', '{{\"pipeline\": []}}', 5, '', 0, 3, "
        f"'linear', '', 'skip', 'allow', '', '{owner}', 'active', {moment}, {moment}"
    )
    connection.execute(text(f"INSERT INTO tasks ({_COLUMNS}) VALUES ({values})".replace(":", r"\:")))


def _scalars(connection: Connection, query: str) -> list[Any]:
    return list(connection.execute(text(query)).scalars())


@pytest.fixture
def upgraded(empty_database_url: str) -> str:
    """A database that had a task, with an occurrence, before."""
    _upgrade_to_before(empty_database_url)
    with open_target(empty_database_url).connect("tasks") as connection, connection.begin():
        _add_task(connection, _TASK, "nightly")
        moment = "0" if connection.dialect.name == "sqlite" else "now()"
        connection.execute(
            text(
                "INSERT INTO occurrences (task_id, scheduled_for, outcome, reason, decided_at) "
                f"SELECT id, {moment}, 'missed', '', {moment} FROM tasks"
            )
        )
    runner.upgrade(empty_database_url)
    return empty_database_url


def test_tasks_and_what_hangs_on_them_are_kept(upgraded: str) -> None:
    with open_target(upgraded).connect("tasks") as connection:
        assert _scalars(connection, "SELECT title FROM tasks") == ["nightly"]
        assert _scalars(connection, "SELECT event_filter FROM tasks") == [""]
        assert _scalars(connection, "SELECT topic_key FROM tasks") == [None]
        assert _scalars(connection, "SELECT condition FROM tasks") == [None]
        joined = "SELECT count(*) FROM occurrences JOIN tasks ON tasks.id = occurrences.task_id"
        assert _scalars(connection, joined) == [1]


def test_occurrences_still_belong_to_tasks(upgraded: str) -> None:
    with open_target(upgraded).connect("tasks") as connection:
        if connection.dialect.name == "sqlite":
            # As the service does, and before any transaction.
            connection.connection.driver_connection.execute("PRAGMA foreign_keys = ON")  # type: ignore[union-attr]
        with pytest.raises(IntegrityError), connection.begin():
            connection.execute(text("DELETE FROM tasks"))


def test_names_of_tasks_are_still_collected(upgraded: str) -> None:
    with open_target(upgraded).connect("tasks") as connection, connection.begin():
        _add_task(connection, _OWNER, "weekly")
        connection.execute(text("UPDATE tasks SET title = 'monthly' WHERE title = 'nightly'"))
        assert sorted(_scalars(connection, "SELECT task FROM run_names")) == ["monthly", "nightly", "weekly"]


def test_an_earlier_baton_goes_on_beside_it(upgraded: str) -> None:
    """It knows nothing of the new columns."""
    with open_target(upgraded).connect("tasks") as connection, connection.begin():
        _add_task(connection, _OWNER, "weekly")
        assert len(_scalars(connection, "SELECT id FROM tasks")) == 2


@pytest.mark.parametrize(
    ("kind", "allowed"), [("event", True), ("condition", True), ("cron", True), ("whatever", False)]
)
def test_tasks_may_wait_for_events_and_conditions(upgraded: str, kind: str, allowed: bool) -> None:
    with open_target(upgraded).connect("tasks") as connection:
        if allowed:
            with connection.begin():
                _add_task(connection, _OWNER, "weekly", kind)
        else:
            with pytest.raises(IntegrityError), connection.begin():
                _add_task(connection, _OWNER, "weekly", kind)
