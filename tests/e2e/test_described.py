"""Baton is as its OpenAPI document says: schemathesis sends what that allows and what it forbids, and looks at answers.

It does what it likes with whatever it finds, so that it has a Baton to itself.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import StartBaton

SETTINGS = Path(__file__).with_name("schemathesis.toml")
LEFT_OUT = {
    "WorkService_LeaseRuns": "waits for work as long as it is told to",
    "AgentService_RevokeToken": "may end the token that all is asked with",
    "AgentService_RotateToken": "may end the token that all is asked with",
}
# What is wrong is refused before any database is asked, so that one is enough for that.
MODES = {"sqlite": "negative", "postgres": "positive"}


@pytest.mark.timeout(900)
def test_the_api_is_as_it_is_described(engine: str, start_here: StartBaton, tmp_path: Path) -> None:
    baton = start_here(BATON_DEMO="1")
    left_out = "".join(f"left out: {operation}, because it {reason}\n" for operation, reason in LEFT_OUT.items())
    sys.stdout.write(left_out)
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            f"--config-file={SETTINGS}",
            "run",
            f"{baton.url}/openapi.json",
            f"--mode={MODES[engine]}",
            *(f"--exclude-operation-id={operation}" for operation in LEFT_OUT),
            # Further paths of the same methods.
            r"--exclude-operation-id-regex=_\d+$",
            "--no-color",
        ],
        cwd=tmp_path,
        env={**os.environ, "BATON_TOKEN": baton.admin_token},
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stderr
    # Had it taken its own rights away, every answer would have been as described, and nothing been shown.
    assert "admin" in baton.get("/whoami")["scopes"]
