"""The agents that exist from the start, and their first tokens."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.chassis.call import Caller
from services.chassis.database import Database
from services.chassis.egress.guard import Guard
from services.sessions import tokens
from services.sessions.bootstrap import SYSTEM, SYSTEM_ID, WORKER, mint_to_file
from services.sessions.errors import TokenInvalid
from services.sessions.models.agent import Agent, NewAgent
from services.sessions.models.token import Grant
from services.sessions.operations.agent import create_agent
from services.sessions.operations.token import exchange_token, revoke_token
from services.sessions.service import SCHEMA
from services.sessions.store import agent as store
from tests.support.clock import ManualClock


@pytest.fixture
def database(migrated_url: str, clock: ManualClock) -> Iterator[Database]:
    database = Database(migrated_url, schema=SCHEMA, pool_size=2, clock=clock)
    yield database
    database.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "token"


def grant(database: Database, path: Path) -> Grant:
    text = path.read_text()
    return database.run(lambda connection, clock: exchange_token(connection, text=text, clock=clock))


def agent_named(database: Database, name: str) -> Agent:
    agent = database.run(lambda connection, clock: store.find_named(connection, name=name))
    assert agent is not None
    return agent


def test_the_admin_token_opens_everything(database: Database, path: Path, clock: ManualClock) -> None:
    assert mint_to_file(database, SYSTEM.name, SYSTEM.scopes, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert grant(database, path).agent_id == SYSTEM_ID
    assert grant(database, path).scopes == ("admin",)
    clock.advance(days=90, microseconds=-1)
    grant(database, path)
    clock.advance(microseconds=1)
    with pytest.raises(TokenInvalid):
        grant(database, path)


def test_the_worker_gets_what_a_worker_needs(database: Database, path: Path) -> None:
    mint_to_file(database, WORKER.name, WORKER.scopes, path)
    assert grant(database, path).scopes == WORKER.scopes
    assert grant(database, path).agent_id == agent_named(database, "worker").id


def test_an_agent_keeps_its_role_when_its_scopes_are_put_right(database: Database, path: Path) -> None:
    admin = Caller("ada", frozenset({"admin"}))
    database.run(
        lambda connection, clock: create_agent(
            connection, NewAgent(name=WORKER.name, scopes=("tasks:read",), role="builder"), Guard(), admin, clock
        )
    )
    mint_to_file(database, WORKER.name, WORKER.scopes, path)
    worker = agent_named(database, WORKER.name)
    assert (worker.scopes, worker.role) == (WORKER.scopes, "builder")
    assert grant(database, path).role == "builder"


def test_a_good_token_stays(database: Database, path: Path) -> None:
    mint_to_file(database, SYSTEM.name, SYSTEM.scopes, path)
    written = path.read_text()
    assert not mint_to_file(database, SYSTEM.name, SYSTEM.scopes, path)
    assert path.read_text() == written


@pytest.mark.parametrize("content", ["", "garbage", tokens.new_token()], ids=["empty", "garbage", "unknown"])
def test_what_is_no_token_is_replaced(database: Database, path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    path.chmod(0o644)
    assert mint_to_file(database, SYSTEM.name, SYSTEM.scopes, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    grant(database, path)


def test_a_revoked_token_is_replaced(database: Database, path: Path) -> None:
    mint_to_file(database, SYSTEM.name, SYSTEM.scopes, path)
    token_id = grant(database, path).token_id
    database.run(
        lambda connection, clock: revoke_token(
            connection, agent_id=SYSTEM_ID, token_id=token_id, actor=SYSTEM_ID, clock=clock
        )
    )
    assert mint_to_file(database, SYSTEM.name, SYSTEM.scopes, path)
    assert grant(database, path).token_id != token_id


def test_a_token_is_replaced_in_its_last_week(database: Database, path: Path, clock: ManualClock) -> None:
    mint_to_file(database, SYSTEM.name, SYSTEM.scopes, path)
    clock.advance(days=83, microseconds=-1)
    assert not mint_to_file(database, SYSTEM.name, SYSTEM.scopes, path)
    clock.advance(microseconds=1)
    assert mint_to_file(database, SYSTEM.name, SYSTEM.scopes, path)


def test_another_agents_token_is_replaced(database: Database, path: Path) -> None:
    mint_to_file(database, WORKER.name, WORKER.scopes, path)
    assert mint_to_file(database, SYSTEM.name, SYSTEM.scopes, path)
    assert grant(database, path).agent_id == SYSTEM_ID


def test_an_agent_gets_the_scopes_it_lacks_and_a_token_with_them(
    database: Database, path: Path, clock: ManualClock
) -> None:
    mint_to_file(database, WORKER.name, ["runs:work"], path)
    created = agent_named(database, "worker")
    clock.advance(hours=1)
    assert mint_to_file(database, WORKER.name, WORKER.scopes, path)
    assert grant(database, path).scopes == WORKER.scopes
    changed = agent_named(database, "worker")
    assert (changed.id, changed.created_at) == (created.id, created.created_at)
    assert changed.updated_at == created.updated_at + timedelta(hours=1)


def run_bootstrap(database_url: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.sessions", "bootstrap", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "BATON_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_command_writes_both_tokens_and_prints_neither(migrated_url: str, database: Database, path: Path) -> None:
    worker_path = path.with_name("worker-token")
    done = run_bootstrap(migrated_url, "--admin-token-file", path, "--worker-token-file", worker_path)
    assert done.returncode == 0, done.stderr
    for token in (path.read_text(), worker_path.read_text()):
        assert token.split("_")[2] not in done.stdout + done.stderr
    assert grant(database, path).scopes == SYSTEM.scopes
    assert grant(database, worker_path).scopes == WORKER.scopes


def test_the_command_needs_a_migrated_database(tmp_path: Path, path: Path) -> None:
    failed = run_bootstrap(f"sqlite:///{tmp_path / 'sessions.db'}", "--admin-token-file", path)
    assert failed.returncode == 1
    assert "database" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr
    assert not path.exists()
