"""A nightly job as people run one beside Baton: it does its tasks one after the other and reports each over REST.

`python nightly.py plan.json` with API_BASE and API_TOKEN in the environment. The plan is a list of {"task",
"command", "inputs"}; a command is a list of words, run without a shell. Exits 1 when a task has failed.
"""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

TIMEOUT_SECONDS = 60
EXCERPT_LINES, EXCERPT_CHARACTERS = 10, 2000
OUTPUTS = (r"^outputs_uri=(\S+)", r"(https://github\.com/\S+/pull/\d+)", r"(\S*/artifacts/\S+)")
PULL_REQUEST = re.compile(r"/pull/\d+")


class Ledger:
    """Where the tasks are reported."""

    def __init__(self, base: str, token: str) -> None:
        self._url = f"{base}/agents/tasks/"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def create(self, **fields: Any) -> Any:
        return self._answer(self._session.post(self._url, json=fields, timeout=TIMEOUT_SECONDS))

    def patch(self, run_id: str, **fields: Any) -> Any:
        return self._answer(self._session.patch(self._url + run_id, json=fields, timeout=TIMEOUT_SECONDS))

    def _answer(self, response: requests.Response) -> Any:
        response.raise_for_status()
        return response.json()


def run(ledger: Ledger, batch: str, task: str, command: list[str], inputs: dict[str, Any]) -> bool:
    """Does one task; whatever happens, its row says how it ended."""
    row = ledger.create(task=task, run_id=batch, status="running", inputs=inputs)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        output, succeeded = done.stdout + done.stderr, done.returncode == 0
    except (OSError, subprocess.TimeoutExpired) as error:
        output, succeeded = str(error), False
    told: dict[str, Any] = {"log_excerpt": excerpt(output), "outputs_uri": outputs_uri(output)}
    if succeeded and PULL_REQUEST.search(output):
        status = {"status": "awaiting_approval", "approval_state": "pending"}
    else:
        status = {"status": "succeeded" if succeeded else "failed"}
    ledger.patch(row["id"], finished_at=now(), **status, **told)
    # Only now somebody has been told.
    ledger.patch(row["id"], webhook_notified_at=now())
    return succeeded


def outputs_uri(output: str) -> str | None:
    """Where the output says that its results are, if it does."""
    for pattern in OUTPUTS:
        if found := re.search(pattern, output, re.MULTILINE):
            return found[1]
    return None


def excerpt(output: str) -> str:
    """The first and the last lines."""
    lines = output.splitlines()
    if len(lines) > 2 * EXCERPT_LINES:
        lines = [*lines[:EXCERPT_LINES], "...", *lines[-EXCERPT_LINES:]]
    return "\n".join(lines)[:EXCERPT_CHARACTERS]


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def main() -> int:
    ledger = Ledger(os.environ["API_BASE"], os.environ["API_TOKEN"])
    batch = f"nightly-{datetime.now(UTC):%Y-%m-%d}"
    plan = json.loads(Path(sys.argv[1]).read_text())
    results = [run(ledger, batch, step["task"], step["command"], step["inputs"]) for step in plan]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
