from pathlib import Path

import pytest

from services.chassis import config
from services.chassis.config import ConfigurationError
from services.worker.config import Settings
from services.worker.limits import ProcessLimits

REQUIRED = {
    "BATON_TASKS_ADDRESS": "127.0.0.1:1",
    "BATON_SESSIONS_ADDRESS": "127.0.0.1:2",
    "BATON_WORKFLOWS_ADDRESS": "127.0.0.1:3",
    "BATON_WORKER_TOKEN_FILE": "/run/token",
}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BATON_WORKER_CONCURRENCY", "0"),
        ("BATON_WORKER_CONCURRENCY", "-1"),
        ("BATON_WORKER_CONCURRENCY", "1001"),
        ("BATON_WORKER_TOOL_CALLS", "0"),
        ("BATON_WORKER_TOOL_CALLS", "1001"),
        ("BATON_TOOL_MEMORY_MB", "63"),
        ("BATON_TOOL_MEMORY_MB", "-1"),
        ("BATON_TOOL_MEMORY_MB", "1048577"),
        ("BATON_TOOL_OPEN_FILES", "0"),
        ("BATON_TOOL_OPEN_FILES", "63"),
        ("BATON_WORKER_GRACE_SECONDS", "-0.1"),
        ("BATON_WORKER_GRACE_SECONDS", "nan"),
        ("BATON_WORKER_GRACE_SECONDS", "inf"),
    ],
)
def test_numbers_out_of_bounds_are_refused_by_their_name(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{variable} is {value}, must be"):
        config.load(Settings, {**REQUIRED, variable: value})


@pytest.mark.parametrize("concurrency", ["1", "1000"])
def test_the_bounds_themselves_are_allowed(concurrency: str) -> None:
    settings = config.load(
        Settings, {**REQUIRED, "BATON_WORKER_CONCURRENCY": concurrency, "BATON_WORKER_GRACE_SECONDS": "0"}
    )
    assert (settings.concurrency, settings.grace_seconds) == (int(concurrency), 0)


def test_what_may_be_reached_is_checked_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"BATON_EGRESS_ALLOW has 'https://internal\.svc', which is no"):
        config.load(Settings, {**REQUIRED, "BATON_EGRESS_ALLOW": "loopback, https://internal.svc"})
    assert config.load(Settings, REQUIRED).egress_allow == ""


def test_secrets_lie_in_a_folder(tmp_path: Path) -> None:
    assert config.load(Settings, REQUIRED).secrets_dir is None
    assert config.load(Settings, {**REQUIRED, "BATON_SECRETS_DIR": str(tmp_path)}).secrets_dir == tmp_path
    with pytest.raises(ConfigurationError, match=r"BATON_SECRETS_DIR is /nowhere, must be a folder"):
        config.load(Settings, {**REQUIRED, "BATON_SECRETS_DIR": "/nowhere"})


def test_the_processes_of_tool_servers_are_limited_as_their_operator_says() -> None:
    assert config.load(Settings, REQUIRED).process_limits == ProcessLimits(2048 * 2**20, 1024)
    none = {**REQUIRED, "BATON_TOOL_MEMORY_MB": "0", "BATON_TOOL_OPEN_FILES": "64"}
    assert config.load(Settings, none).process_limits == ProcessLimits(0, 64)
