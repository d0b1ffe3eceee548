"""Revision 0002 of tasks: what an earlier Baton stored is all there afterwards."""

from typing import Any

from sqlalchemy import Connection, text

from migrations import runner
from migrations.runner import open_target
from tests.migrations.conftest import upgrade_to_0001

_TASK, _DONE, _RUN, _PAST, _OWNER = (f"0198a000-0000-7000-8000-00000000000{digit}" for digit in range(5))
_TOKEN = "11111111-1111-4111-8111-111111111111"


def _insert(connection: Connection, table: str, **values: Any) -> None:
    sqlite = connection.dialect.name == "sqlite"
    stored = {
        name: value.replace("-", "") if sqlite and isinstance(value, str) and value[8:9] == "-" else value
        for name, value in values.items()
    }
    names = ", ".join(stored)
    places = ", ".join(f"CAST(:{name} AS {_casts(name)})" if not sqlite else f":{name}" for name in stored)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), stored)


def _casts(name: str) -> str:
    if name in ("id", "task_id", "run_id", "created_by", "lease_token", "lease_owner"):
        return "uuid"
    if name.endswith("_at") or name == "scheduled_for":
        return "timestamptz"
    if name in ("payload", "output", "error"):
        return "jsonb"
    return "integer" if name in ("priority", "attempt", "crashes", "duration_ms") else "text"


def _moment(connection: Connection, second: int) -> Any:
    return second * 1_000_000 if connection.dialect.name == "sqlite" else f"1970-01-01T00:00:{second:02}Z"


def _fill(connection: Connection) -> None:
    def at(second: int) -> Any:
        return _moment(connection, second)

    task = {
        "title": "nightly", "description": "", "timezone": "UTC", "payload": '{"pipeline": []}', "priority": 4,
        "created_by": _OWNER, "created_at": at(1), "updated_at": at(2),
    }  # fmt: skip
    cron = {"schedule_kind": "cron", "schedule_expr": "0 2 * * *", "status": "paused", "next_fire_at": at(9)}
    once = {"schedule_kind": "once", "schedule_expr": "1970-01-01T00:00:03Z", "status": "active"}
    _insert(connection, "tasks", id=_TASK, **task, **cron)
    _insert(connection, "tasks", id=_DONE, **task, **once)
    run = {
        "task_id": _TASK, "task": "nightly", "priority": 4, "due_at": at(3), "started_at": at(4), "attempt": 1,
        "payload": '{"pipeline": [], "params": {"a": 1}}', "traceparent": "00-1-2-01", "created_by": _OWNER,
        "created_at": at(3), "updated_at": at(4),
    }  # fmt: skip
    lease = {"crashes": 1, "lease_token": _TOKEN, "lease_owner": _OWNER, "lease_expires_at": at(34)}
    _insert(connection, "runs", id=_RUN, **run, **lease)
    ended = {
        "status": "failed",
        "finished_at": at(5),
        "duration_ms": 1000,
        "output": "{}",
        "error": '{"class": "tool"}',
    }
    _insert(connection, "run_history", id=_PAST, **run, **ended)
    _insert(
        connection, "occurrences", task_id=_TASK, scheduled_for=at(3), outcome="ran", reason="", run_id=_PAST,
        created_at=at(3),
    )  # fmt: skip


def test_what_was_stored_before_is_kept(empty_database_url: str) -> None:
    upgrade_to_0001(empty_database_url)
    with open_target(empty_database_url).connect("tasks") as connection, connection.begin():
        _fill(connection)

    runner.upgrade(empty_database_url)

    with open_target(empty_database_url).connect("tasks") as connection:
        tasks = connection.execute(text("SELECT * FROM tasks ORDER BY id")).mappings().all()
        (run,) = connection.execute(text("SELECT * FROM runs")).mappings()
        (past,) = connection.execute(text("SELECT * FROM run_history")).mappings()
        (occurrence,) = connection.execute(text("SELECT * FROM occurrences")).mappings()
    paused, done = tasks
    assert (paused["title"], paused["priority"], paused["status"]) == ("nightly", 4, "paused")
    assert (paused["max_retries"], paused["misfire"], paused["overlap"]) == (3, "run_once", "allow")
    assert paused["paused_at"] == paused["updated_at"]
    assert paused["next_scheduled_for"] == paused["next_fire_at"] is not None
    # A single instant that had fired was still called active.
    assert (done["status"], done["next_fire_at"]) == ("completed", None)
    assert (run["attempt"], run["crashes"], run["payload_size"] > 20) == (1, 1, True)
    assert run["lease_expires_at"] is not None
    assert (past["status"], past["duration_ms"]) == ("failed", 1000)
    assert not past["reported"]
    assert (occurrence["outcome"], occurrence["decided_at"]) == ("ran", occurrence["scheduled_for"])
