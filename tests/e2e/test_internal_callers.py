"""The program of docs/internal-callers.md, as it stands there, against services that are killed meanwhile."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import StartBaton
from tests.e2e.test_readme import blocks
from tests.support.baton import ROOT, Baton
from tests.support.waiting import wait_until

ORDERS = [f"no-{number}" for number in range(300)]
[PROGRAM] = blocks((ROOT / "docs" / "internal-callers.md").read_text(), "python")


def started(baton: Baton, folder: Path, token: str) -> "subprocess.Popen[str]":
    program = folder / "orders.py"
    program.write_text(PROGRAM)
    environment = {
        "PYTHONPATH": str(ROOT / "gen"),
        "BATON_TASKS_ADDRESS": f"unix:{baton.home}/run/tasks.sock",
        "BATON_SESSIONS_ADDRESS": f"unix:{baton.home}/run/sessions.sock",
        "BATON_TOKEN": token,
    }
    command = [sys.executable, str(program)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.timeout(180)
def test_each_order_has_one_run_whatever_is_killed(start_here: StartBaton, tmp_path: Path) -> None:
    baton = start_here()
    token = baton.agent_token(["tasks:write"])
    running = started(baton, tmp_path, token)
    assert running.stdin is not None
    assert running.stdout is not None
    printed = []
    for number, order in enumerate(ORDERS):
        print(order, file=running.stdin, flush=True)
        if number in (100, 200):
            # In the middle of a call as a rule: the program has been given the next order already.
            baton.kill("tasks")
        if number >= 20:
            printed.append(running.stdout.readline().split())
    rest, errors = running.communicate()
    assert (running.returncode, errors) == (0, "")
    printed += [line.split() for line in rest.splitlines()]
    assert [order for order, _ in printed] == ORDERS
    runs = {run_id for _, run_id in printed}
    assert len(runs) == len(ORDERS)
    again = started(baton, tmp_path, token).communicate("\n".join(ORDERS))
    assert [line.split() for line in again[0].splitlines()] == printed

    def ended() -> bool:
        lines = baton.call("GET", "/runs.ndjson?batch_id=orders&status=succeeded").text.splitlines()
        return {json.loads(line)["id"] for line in lines} == runs

    wait_until(ended)
    assert baton.get("/runs?batch_id=orders")["total"] == len(ORDERS)
    assert [item["title"] for item in baton.get("/tasks")["items"]] == ["Order"]


def test_who_may_not_is_told_why(baton: Baton, tmp_path: Path) -> None:
    running = started(baton, tmp_path, baton.agent_token(["tasks:read"]))
    _, errors = running.communicate("")
    assert running.returncode == 1
    assert errors.startswith("SCOPE_MISSING: this needs the scope 'tasks:write'")
