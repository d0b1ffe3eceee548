"""`python -m migrations`: exit codes, what it says, and what it never says."""

import socket
from pathlib import Path

import pytest
from sqlalchemy import text

from migrations import address
from migrations.contexts import CONTEXTS
from migrations.logins import login, password
from migrations.runner import open_target
from tests.migrations.conftest import HEADS, STEPS, Command, add_template
from tests.support.databases import PASSWORD_SECRET

_PASSWORD = "correct/horse battery"
_QUOTED = "correct%2Fhorse%20battery"


@pytest.fixture
def dead_url() -> str:
    """A URL on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"postgresql://baton:{_QUOTED}@127.0.0.1:{listener.getsockname()[1]}/baton?password={_QUOTED}"


def _only_row(database_url: str, *, write: bool = False) -> list[str]:
    with open_target(database_url).connect("workflows") as connection, connection.begin():
        if write:
            add_template(connection, "mine")
        return list(connection.execute(text("SELECT name FROM templates")).scalars())


def test_upgrade_says_what_it_did_for_each_context(command: Command, empty_database_url: str) -> None:
    first = command("upgrade", "--database-url", empty_database_url)
    assert first.code == 0
    lines = [line.split() for line in first.out.splitlines()]
    assert lines[0] == ["context", "from", "to", "steps", "time"]
    assert [line[:4] for line in lines[1:]] == [
        [context, "-", HEADS[context], str(len(STEPS[context]))] for context in CONTEXTS
    ]
    again = command("upgrade", "--database-url", empty_database_url)
    assert again.code == 0
    assert again.out.count("up to date") == 3


def test_upgrade_tells_each_step_when_asked_to(command: Command, empty_database_url: str) -> None:
    said = command("upgrade", "-v", "--database-url", empty_database_url).out
    assert [line for line in said.splitlines() if line.startswith("step:")] == [
        f"step: {context} {revision}" for context in CONTEXTS for revision in STEPS[context]
    ]


def test_a_failing_step_exits_with_1_and_says_which_and_why(command: Command, empty_database_url: str) -> None:
    target = open_target(empty_database_url)
    with target.locked():
        target.prepare(None)
    with target.connect("workflows") as connection, connection.begin():
        connection.execute(text("CREATE TABLE templates (in_the_way INTEGER)"))
    failed = command("upgrade", "--database-url", empty_database_url)
    assert failed.code == 1
    assert "error: step 0001 of workflows (Workflow templates) failed and was rolled back: " in failed.err
    assert "already exists" in failed.err
    assert [line.split()[:4] for line in failed.out.splitlines()[1:]] == [
        *([context, "-", HEADS[context], str(len(STEPS[context]))] for context in ("sessions", "tasks")),
        ["workflows", "-", "-", "0"],
    ]


def test_status_exits_with_3_while_steps_are_pending_and_changes_nothing(
    command: Command, empty_database_url: str
) -> None:
    pending = command("status", "--database-url", empty_database_url)
    assert pending.code == 3
    assert pending.out.splitlines()[1].split() == ["sessions", "-", HEADS["sessions"], str(len(STEPS["sessions"]))]
    again = command("status", "--database-url", empty_database_url)
    assert again == pending
    if empty_database_url.startswith("sqlite"):
        assert not address.directory(address.parse(empty_database_url)).exists()
    command("upgrade", "--database-url", empty_database_url)
    done = command("status", "--database-url", empty_database_url)
    assert done.code == 0
    assert done.out.splitlines()[1].split() == ["sessions", HEADS["sessions"], HEADS["sessions"], "0"]


def test_verify_exits_with_1_and_names_each_finding(command: Command, database_url: str) -> None:
    assert command("verify", "--database-url", database_url).out == "all is as expected\n"
    with open_target(database_url).connect("tasks") as connection, connection.begin():
        connection.execute(text("DROP INDEX ix_tasks_due"))
    found = command("verify", "--database-url", database_url)
    assert found.code == 1
    assert found.out.splitlines() == ["tasks: index ix_tasks_due of tasks is missing", "1 findings"]


@pytest.mark.parametrize("action", ["upgrade", "status", "verify", "reset"])
def test_an_unreachable_database_is_one_line_without_the_password(command: Command, dead_url: str, action: str) -> None:
    failed = command(action, "-v", "--database-url", dead_url)
    assert failed.code == 1
    assert "error: the database postgresql://baton:***@127.0.0.1:" in failed.err
    assert "cannot be reached" in failed.err
    assert len(failed.err.splitlines()) == 1
    assert _PASSWORD not in failed.out + failed.err
    assert _QUOTED not in failed.out + failed.err


def test_a_file_that_is_no_database_is_unreachable_too(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tasks.db").write_text("this is no database, and long enough to have a header of its own" * 20)
    failed = command("status", "--database-url", f"sqlite:///{tmp_path}")
    assert failed.code == 1
    assert "file is not a database" in failed.err


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://baton:s3cret@localhost:port/baton",
        "mysql://baton:s3cret@localhost/baton",
        "postgresql://baton:s3cret@localhost",
        "s3cret",
    ],
)
def test_a_url_that_cannot_be_used_is_explained_and_not_repeated(command: Command, url: str) -> None:
    failed = command("status", "--database-url", url)
    assert failed.code == 1
    assert "expected postgresql://user:password@host/database, or sqlite:///directory" in failed.err
    assert "s3cret" not in failed.out + failed.err


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_the_logins_passwords_come_from_the_secret_file_and_are_not_said(
    command: Command, empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(PASSWORD_SECRET)
    monkeypatch.setenv("BATON_DATABASE_PASSWORD_SECRET_FILE", str(file))
    done = command("upgrade", "-v", "--database-url", empty_database_url)
    assert done.code == 0
    name = login(empty_database_url.rsplit("/", 1)[1], "tasks")
    assert password(PASSWORD_SECRET, name) not in done.out + done.err


def test_a_short_secret_is_refused(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"qwertz")
    monkeypatch.setenv("BATON_DATABASE_PASSWORD_SECRET_FILE", str(file))
    refused = command("upgrade", "--database-url", f"sqlite:///{tmp_path / 'database'}")
    assert refused.code == 1
    assert "BATON_DATABASE_PASSWORD_SECRET_FILE" in refused.err
    assert "too short" in refused.err
    assert "qwertz" not in refused.err


def test_without_a_url_the_environment_says_where(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("BATON_HOME", str(tmp_path / "home"))
    assert command("upgrade").code == 0
    assert (tmp_path / "home" / "tasks.db").exists()
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'elsewhere'}")
    assert command("upgrade").code == 0
    assert (tmp_path / "elsewhere" / "tasks.db").exists()


def test_reset_refuses_a_database_without_the_mark(command: Command, database_url: str) -> None:
    _only_row(database_url, write=True)
    refused = command("reset", "--database-url", database_url, typed="database\n")
    assert refused.code == 1
    assert "is not marked as a development database" in refused.err
    assert _only_row(database_url) == ["mine"]


def test_reset_drops_the_data_once_the_name_is_typed(command: Command, empty_database_url: str) -> None:
    command("upgrade", "--development", "--database-url", empty_database_url)
    _only_row(empty_database_url, write=True)
    for typed in ("", "yes\n"):
        refused = command("reset", "--database-url", empty_database_url, typed=typed)
        assert refused.code == 1
        assert "nothing was dropped" in refused.err
        assert _only_row(empty_database_url) == ["mine"]
    name = empty_database_url.rsplit("/", 1)[1]
    done = command("reset", "--database-url", empty_database_url, typed=f"{name}\n")
    assert done.code == 0
    assert f"Type its name, {name}," in done.out
    assert _only_row(empty_database_url) == []
    assert command("verify", "--database-url", empty_database_url).code == 0
    assert command("reset", "--database-url", empty_database_url, typed=f"{name}\n").code == 0


def test_a_database_with_tables_cannot_be_marked_as_development(command: Command, database_url: str) -> None:
    refused = command("upgrade", "--development", "--database-url", database_url)
    assert refused.code == 1
    assert "only an empty database can be marked" in refused.err
