"""What the supervisor tells its processes."""

from pathlib import Path

import pytest

from services.chassis import config
from services.supervisor.config import Settings
from services.supervisor.home import Home
from services.supervisor.processes import Program
from services.supervisor.programs import CONTEXTS, programs


def _programs(tmp_path: Path) -> list[Program]:
    addresses, urls = dict.fromkeys(CONTEXTS, "127.0.0.1:1"), dict.fromkeys(CONTEXTS, "sqlite:///x")
    return programs(Home(tmp_path), addresses, urls, config.load(Settings, {}))


def test_grpc_leaves_forks_alone_in_every_process(tmp_path: Path) -> None:
    """With its fork handlers a tool server can be dead before it has begun; a child reads this for itself."""
    assert {program.environment.get("GRPC_ENABLE_FORK_SUPPORT") for program in _programs(tmp_path)} == {"false"}


def test_settings_of_single_processes_are_passed_on_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_WORKER_CONCURRENCY", "7")
    monkeypatch.setenv("BATON_RETENTION_DAYS", "30")
    monkeypatch.setenv("BATON_EGRESS_ALLOW", "internal.svc")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/own.pem")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    for program in _programs(tmp_path):
        assert program.environment["BATON_WORKER_CONCURRENCY"] == "7"
        assert program.environment["BATON_RETENTION_DAYS"] == "30"
        assert program.environment["BATON_EGRESS_ALLOW"] == "internal.svc"
        assert program.environment["SSL_CERT_FILE"] == "/etc/ssl/own.pem"
        assert "canary" not in program.environment.values()


def test_nothing_beside_the_public_internet_is_allowed_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BATON_EGRESS_ALLOW", raising=False)
    assert not [program for program in _programs(tmp_path) if program.environment.get("BATON_EGRESS_ALLOW")]


def test_only_the_worker_is_told_where_secrets_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_SECRETS_DIR", "/elsewhere")
    told = {program.name: program.environment.get("BATON_SECRETS_DIR") for program in _programs(tmp_path)}
    assert {name: folder for name, folder in told.items() if folder} == {"worker": str(tmp_path / "secrets")}


def test_only_the_tasks_service_is_told_the_url_of_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENT_STREAM_URL", "redis://:canary@127.0.0.1")
    monkeypatch.setenv("BATON_EVENT_STREAM_KEY", "orders")
    monkeypatch.setenv("BATON_EVENT_STREAM_GROUP", "second")
    monkeypatch.setenv("BATON_EVENT_STREAM_AGENT", "somebody")
    monkeypatch.setenv("BATON_EVENT_STREAM_CLAIM_SECONDS", "5")
    told = {program.name: program.environment for program in _programs(tmp_path)}
    assert [name for name, environment in told.items() if "canary" in str(environment)] == ["tasks"]
    assert told["tasks"]["EVENT_STREAM_URL"] == "redis://:canary@127.0.0.1"
    settings = {name: value for name, value in told["tasks"].items() if name.startswith("BATON_EVENT_STREAM_")}
    assert list(settings.values()) == ["orders", "second", "somebody", "5"]


def test_nobody_else_may_look_into_a_homes_secrets(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare(demo=False)
    home.prepare(demo=False)
    assert home.secrets.stat().st_mode & 0o777 == 0o700
