"""What is not as it should be is found and named."""

import psycopg
import pytest
from sqlalchemy import text

from migrations import runner, verification
from migrations.contexts import CONTEXTS, expected
from migrations.logins import login
from migrations.runner import open_target


def _change(database_url: str, context: str, statement: str) -> None:
    with open_target(database_url).connect(context) as connection, connection.begin():
        connection.execute(text(statement))


def _drift(database_url: str, context: str) -> list[str]:
    with open_target(database_url).connect(context) as connection:
        return verification.drift(connection, expected(context))


@pytest.mark.parametrize(
    ("context", "change", "finding"),
    [
        ("tasks", "DROP INDEX ix_tasks_due", "index ix_tasks_due of tasks is missing"),
        ("tasks", "CREATE TABLE mine (id int)", "table mine is not expected"),
        ("tasks", "DROP TABLE run_names", "table run_names is missing"),
        ("sessions", "ALTER TABLE agents ADD COLUMN mine text", "column agents.mine is not expected"),
        ("sessions", "ALTER TABLE tokens DROP COLUMN revoked_at", "column tokens.revoked_at is missing"),
        (
            "sessions",
            "CREATE INDEX mine ON tokens (agent_id)",
            "index mine of tokens is not expected",
        ),
    ],
)
def test_a_change_by_hand_is_found(database_url: str, context: str, change: str, finding: str) -> None:
    _change(database_url, context, change)
    assert _drift(database_url, context) == [finding]


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("ALTER TABLE tasks ALTER role TYPE varchar(10)", "tasks.role has type VARCHAR(10), expected VARCHAR(50)"),
        ("ALTER TABLE tasks ALTER title DROP NOT NULL", "tasks.title has nullable True, expected False"),
        ("ALTER TABLE tasks DROP CONSTRAINT ck_tasks_status", "constraint ck_tasks_status of tasks is missing"),
        ("ALTER TABLE tools DROP CONSTRAINT fk_tools_server", "constraint fk_tools_server of tools is missing"),
    ],
)
def test_a_changed_column_or_constraint_is_found(database_url: str, change: str, finding: str) -> None:
    _change(database_url, "tasks", change)
    assert _drift(database_url, "tasks") == [finding]


def test_an_index_that_is_no_longer_partial_is_found(database_url: str) -> None:
    _change(database_url, "tasks", "DROP INDEX ix_runs_claim")
    _change(database_url, "tasks", "CREATE INDEX ix_runs_claim ON runs (role, priority, due_at, id)")
    assert _drift(database_url, "tasks") == ["index ix_runs_claim of runs must be partial"]


def test_steps_that_are_not_applied_are_found(empty_database_url: str) -> None:
    found = verification.findings(empty_database_url)
    assert "workflows: step 0001 (Workflow templates) is not applied" in found


def _names(database_url: str) -> dict[str, str]:
    """The logins by context, as the changes and findings below name them."""
    database = database_url.rsplit("/", 1)[1]
    return {"database": database, **{context: login(database, context) for context in CONTEXTS}}


def _administer(database_url: str, statement: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(statement.format(**_names(database_url)).encode())


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("GRANT SELECT ON tasks.tasks TO {sessions}", "{sessions} has SELECT on tasks.tasks, and should not"),
        ("GRANT USAGE ON SCHEMA tasks TO {sessions}", "{sessions} has USAGE on schema tasks, and should not"),
        ("GRANT INSERT ON tasks.tasks TO PUBLIC", "{workflows} has INSERT on tasks.tasks, and should not"),
        ("GRANT TRUNCATE ON tasks.runs TO {tasks}", "{tasks} has TRUNCATE on tasks.runs, and should not"),
        ("GRANT CREATE ON SCHEMA tasks TO {tasks}", "{tasks} has CREATE on schema tasks, and should not"),
        ("GRANT TEMPORARY ON DATABASE {database} TO PUBLIC", "{tasks} has TEMPORARY on the database, and should not"),
        ("REVOKE UPDATE ON tasks.runs FROM {tasks}", "{tasks} lacks UPDATE on tasks.runs"),
    ],
)
def test_wrong_access_is_found_and_an_upgrade_mends_it(database_url: str, change: str, finding: str) -> None:
    _administer(database_url, change)
    assert finding.format(**_names(database_url)) in open_target(database_url).exposures()
    runner.upgrade(database_url)
    assert open_target(database_url).exposures() == []


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("ALTER ROLE {tasks} CREATEDB", "{tasks} may create databases"),
        ("ALTER ROLE {tasks} BYPASSRLS", "{tasks} bypasses row security"),
        ("GRANT {sessions} TO {tasks}", "{tasks} is a member of another role"),
    ],
)
def test_a_login_with_powers_is_found(database_url: str, change: str, finding: str) -> None:
    _administer(database_url, change)
    assert finding.format(**_names(database_url)) in open_target(database_url).exposures()


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_a_missing_login_is_found(database_url: str) -> None:
    _administer(database_url, "DROP OWNED BY {workflows}")
    _administer(database_url, "DROP ROLE {workflows}")
    assert verification.findings(database_url) == ["the login {workflows} is missing".format(**_names(database_url))]
