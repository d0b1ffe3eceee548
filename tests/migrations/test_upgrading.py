"""Bringing a database up: all of it, once, one at a time, and no further than the first failure."""

import subprocess
import sys

import psycopg
import pytest
from sqlalchemy import inspect, text

from migrations import address, runner
from migrations.contexts import CONTEXTS
from migrations.errors import LockHeld, NewerDatabase, StepFailed
from migrations.runner import open_target
from tests.migrations.conftest import HEADS, STEPS, ExtraSteps, add_template
from tests.support.databases import PASSWORD_SECRET, context_url


def _tables(database_url: str, context: str) -> set[str]:
    with open_target(database_url).connect(context) as connection:
        return set(inspect(connection).get_table_names())


def _revision(database_url: str, context: str) -> str | None:
    return {state.context: state.current for state in runner.states(database_url)}[context]


def test_an_empty_database_gets_the_tables_of_every_context(empty_database_url: str) -> None:
    applied = runner.upgrade(empty_database_url)
    assert [(item.context, item.before, item.steps) for item in applied] == [
        (context, None, len(STEPS[context])) for context in CONTEXTS
    ]
    assert {"agents", "tokens", "idempotency_keys"} <= _tables(empty_database_url, "sessions")
    assert {"tasks", "occurrences", "runs", "run_history", "tools"} <= _tables(empty_database_url, "tasks")
    assert "templates" in _tables(empty_database_url, "workflows")


def test_a_second_upgrade_does_nothing(database_url: str) -> None:
    applied = runner.upgrade(database_url, secret=PASSWORD_SECRET)
    assert [item.steps for item in applied] == [0, 0, 0]
    assert all(item.before == item.after for item in applied)


def test_data_survives_an_upgrade(database_url: str) -> None:
    with open_target(database_url).connect("workflows") as connection, connection.begin():
        add_template(connection, "build")
    runner.upgrade(database_url)
    with open_target(database_url).connect("workflows") as connection:
        assert connection.execute(text("SELECT name FROM templates")).scalars().all() == ["build"]


def test_of_two_processes_one_migrates_and_both_succeed(empty_database_url: str) -> None:
    command = [sys.executable, "-m", "migrations", "upgrade", "--database-url", empty_database_url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(out.count("up to date") for out, _ in outputs) == [0, 3]


def test_a_second_migration_waits_only_so_long(empty_database_url: str) -> None:
    with open_target(empty_database_url).locked(), pytest.raises(LockHeld, match="another migration"):
        runner.upgrade(empty_database_url, lock_wait=0.1)


def test_a_failing_step_is_rolled_back_and_those_before_it_stay(
    empty_database_url: str, extra_steps: ExtraSteps
) -> None:
    extra_steps.add("x001", "CREATE TABLE good (id INTEGER)")
    extra_steps.add("x002", "CREATE TABLE half (id INTEGER)", "INSERT INTO nowhere VALUES (1)")
    extra_steps.add("x003", "CREATE TABLE later (id INTEGER)")

    with pytest.raises(StepFailed, match=r"step x002 of tasks \(Step x002 of a test\) failed .*nowhere") as failed:
        runner.upgrade(empty_database_url, config_file=extra_steps.config_file)

    assert [(item.context, item.after, item.steps) for item in failed.value.applied] == [
        ("sessions", HEADS["sessions"], len(STEPS["sessions"])),
        ("tasks", "x001", len(STEPS["tasks"]) + 1),
    ]
    tables = _tables(empty_database_url, "tasks")
    assert "good" in tables
    assert not tables & {"half", "later"}
    assert "templates" not in _tables(empty_database_url, "workflows")


def test_after_the_fault_is_mended_the_rest_is_applied(empty_database_url: str, extra_steps: ExtraSteps) -> None:
    extra_steps.add("x001", "INSERT INTO nowhere VALUES (1)")
    with pytest.raises(StepFailed):
        runner.upgrade(empty_database_url, config_file=extra_steps.config_file)
    extra_steps.add("x001", "CREATE TABLE good (id INTEGER)")
    applied = runner.upgrade(empty_database_url, config_file=extra_steps.config_file)
    assert [(item.context, item.before, item.after) for item in applied] == [
        ("sessions", HEADS["sessions"], HEADS["sessions"]),
        ("tasks", HEADS["tasks"], "x001"),
        ("workflows", None, HEADS["workflows"]),
    ]


def test_a_database_that_is_ahead_of_the_code_is_left_alone(database_url: str, extra_steps: ExtraSteps) -> None:
    extra_steps.add("x001", "CREATE TABLE good (id INTEGER)")
    runner.upgrade(database_url, config_file=extra_steps.config_file)
    with pytest.raises(NewerDatabase, match="tasks tables are at revision x001"):
        runner.upgrade(database_url)


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_a_step_waits_neither_for_locks_nor_for_itself_without_end(database_url: str, extra_steps: ExtraSteps) -> None:
    limits = "current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS statement"
    extra_steps.add("x001", f"CREATE TABLE limits AS SELECT {limits}")
    runner.upgrade(database_url, config_file=extra_steps.config_file)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT lock, statement FROM tasks.limits").fetchone() == ("5s", "10min")


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_a_table_of_a_later_step_is_open_to_its_service(database_url: str, extra_steps: ExtraSteps) -> None:
    extra_steps.add("x001", "CREATE TABLE later (id INTEGER)")
    runner.upgrade(database_url, config_file=extra_steps.config_file)
    with psycopg.connect(context_url(database_url, "tasks")) as connection:
        connection.execute("INSERT INTO tasks.later VALUES (1)")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_the_files_are_their_owners_alone(empty_database_url: str) -> None:
    directory = address.directory(address.parse(empty_database_url))
    runner.upgrade(empty_database_url)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in directory.glob("*.db")} == {0o600}
