"""Processes are killed with -9: nothing is lost, nothing is recorded twice, and the operator is told."""

import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from tests.e2e.conftest import StartBaton
from tests.support.baton import ROOT, Baton, descendants, task
from tests.support.processes import free_port
from tests.support.waiting import wait_until

RESCUE_SECONDS = 5
LEASE_AND_RESCUE_SECONDS = 30 + RESCUE_SECONDS


def add_slow_server(baton: Baton) -> None:
    command = [sys.executable, "-m", "tests.support.mcp_servers"]
    environment = {"PYTHONPATH": str(ROOT)}
    baton.create("/tool-servers", {"name": "slow", "transport": "stdio", "command": command, "env": environment})


@pytest.mark.timeout(180)
def test_a_run_whose_worker_is_killed_is_rescued_and_finishes(baton: Baton) -> None:
    add_slow_server(baton)
    created = baton.create(
        "/tasks",
        task(
            "Interrupted",
            {"id": "before", "uses": "echo.test", "with": {"n": 1}, "save_as": "before"},
            {"id": "during", "uses": "slow.slow", "with": {"seconds": 8}, "save_as": "during"},
            {"id": "after", "uses": "echo.test", "with": {"n": "${steps.before.n}"}, "save_as": "after"},
        ),
    )
    run_id = baton.run_now(created["id"])
    steps_path = f"/runs/{run_id}/steps"
    wait_until(lambda: len(baton.get(steps_path)["items"]) == 1)
    first = baton.get(steps_path)["items"][0]

    os.kill(baton.children()["worker"], signal.SIGKILL)

    interrupted = baton.get(f"/runs/{run_id}")
    assert interrupted["status"] == "running", interrupted
    wait_until(lambda: baton.get(f"/runs/{run_id}")["attempt"] == 2, timeout=LEASE_AND_RESCUE_SECONDS)
    rescued_at = datetime.fromisoformat(baton.get(f"/runs/{run_id}")["updated_at"])
    leased_until = datetime.fromisoformat(interrupted["leased_until"])
    assert (rescued_at - leased_until).total_seconds() <= RESCUE_SECONDS
    run = baton.finished(run_id, timeout=60)
    assert (run["status"], run["attempt"]) == ("succeeded", 2)
    assert run["output"] == {"before": {"n": 1}, "during": {"result": "done"}, "after": {"n": 1}}
    steps = baton.get(steps_path)["items"]
    assert [(step["id"], step["attempt"]) for step in steps] == [("before", 1), ("during", 2), ("after", 2)]
    assert steps[0] == first, "a step that had succeeded was done or recorded again"
    assert any("worker was ended by SIGKILL; it is restarted" in line for line in baton.output)


@pytest.mark.timeout(120)
def test_nothing_outlives_a_killed_supervisor(start_baton: StartBaton) -> None:
    baton = start_baton()
    processes = list(baton.children().values())

    baton.stop(signal.SIGKILL)

    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))
    baton.start()
    assert baton.is_ready()


def test_a_home_serves_one_baton_at_a_time(baton: Baton) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "services"],
        cwd=ROOT,
        env=os.environ | {"BATON_HOME": str(baton.home), "BATON_PORT": str(free_port())},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert second.returncode == 1
    assert "another Baton's, which is running" in second.stderr
    assert baton.is_ready()


@pytest.mark.timeout(120)
def test_every_service_may_be_killed_and_comes_back(baton: Baton) -> None:
    created = baton.create("/tasks", task("Survivor", {"uses": "echo.test"}))
    for name in ("sessions", "tasks", "workflows", "gateway"):
        baton.kill(name)
        wait_until(baton.is_ready)
        assert any(f"{name} was ended by SIGKILL; it is restarted" in line for line in baton.output)
    assert baton.finished(baton.run_now(created["id"]))["status"] == "succeeded"


def test_ctrl_c_stops_everything_and_leaves_no_process(start_baton: StartBaton) -> None:
    baton = start_baton()
    add_slow_server(baton)
    wait_until(lambda: any(item["address"] == "slow.slow" for item in baton.get("/tools")["items"]))
    started = descendants(baton.pid)
    assert len(started) >= 6, "five processes and a tool server"
    assert baton.stop(signal.SIGINT) == 0
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), timeout=5)
    assert baton.output[-1] == "baton: stopped"


def test_a_second_start_finds_everything_as_it_was(start_baton: StartBaton) -> None:
    baton = start_baton()
    created = baton.create("/tasks", task("Kept", {"uses": "echo.test"}))
    token = baton.admin_token
    # Whoever started it has left: the first line closes the pipe, and the second one finds it closed.
    baton.stop_listening()
    for _ in range(2):
        baton.kill("workflows")
        wait_until(baton.is_ready)
    assert baton.stop() == 0
    baton.start()
    assert baton.admin_token == token
    assert baton.get(f"/tasks/{created['id']}") == created


@pytest.mark.timeout(120)
def test_the_embedded_postgres_does_the_same(start_baton: StartBaton) -> None:
    baton = start_baton(DB="postgres", BATON_DEMO="1")
    wait_until(lambda: bool(baton.get("/runs?status=succeeded")["items"]))
    assert oct((baton.home / "admin-token").stat().st_mode & 0o777) == "0o600"
