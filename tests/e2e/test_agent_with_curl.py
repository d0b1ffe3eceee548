"""The agent of docs/agents.md, as it stands there: bash and curl, against all of Baton."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.conftest import StartBaton
from tests.e2e.test_readme import blocks, section
from tests.e2e.test_readme import run as run_blocks
from tests.support.baton import ROOT, Baton, descendants, task
from tests.support.waiting import wait_until

DOCUMENT = (ROOT / "docs" / "agents.md").read_text()
pytestmark = pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="the agent needs them")


class Agent:
    """The script, running."""

    def __init__(self, baton: Baton, role: str, folder: Path, renew_seconds: int) -> None:
        self.baton = baton
        self.role = role
        self.outbox = folder / "outbox"
        self._log = folder / "agent.log"
        script = folder / "agent.sh"
        [text] = blocks(DOCUMENT, "bash")
        script.write_text(text)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {
            "PATH": path,
            "BATON_URL": baton.url,
            "BATON_TOKEN": baton.agent_token(["runs:work"], role),
            "OUTBOX": str(self.outbox),
            "RENEW_SECONDS": str(renew_seconds),
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(["bash", str(script)], env=environment, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the script and to all that it has started."""
        for pid in (self._process.pid, *descendants(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> int:
        """Asks the script to stop; answers its exit code."""
        self._process.terminate()
        return self._process.wait(20)

    def kill(self) -> None:
        """Ends what is left of it."""
        self.signal(signal.SIGKILL)
        self._process.wait(20)


def route(baton: Baton, role: str, data: Any, task_type: str = "notification", **fields: Any) -> str:
    """Hands work over; answers the task's id."""
    work = {"task_type": task_type, "description": "Tell somebody", "data": data}
    response = baton.call("POST", "/tasks/route", {"target": role, "task": work} | fields, Idempotency_Key=str(uuid4()))
    assert response.status_code == 202, response.text
    task_id: str = response.json()["task_id"]
    return task_id


def last_run(baton: Baton, task_id: str) -> Any:
    """The newest run of a task, whole."""
    return baton.get(f"/runs/{baton.get(f'/tasks/{task_id}')['last_run']['id']}")


def becomes(baton: Baton, task_id: str, status: str) -> Any:
    """The newest run of a task, once it has that status."""
    wait_until(lambda: last_run(baton, task_id)["status"] == status)
    return last_run(baton, task_id)


def steps(baton: Baton, run: Any) -> list[tuple[str, str]]:
    return [(step["id"], step["uses"]) for step in baton.get(f"/runs/{run['id']}/steps")["items"]]


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator["StartAgent"]:
    """Starts the agent with a role that nobody else has."""
    started: list[Agent] = []

    def start(baton: Baton, renew_seconds: int = 1) -> Agent:
        role = f"mailer-{uuid4().hex[:8]}"
        folder = tmp_path / role
        folder.mkdir()
        started.append(Agent(baton, role, folder, renew_seconds))
        return started[-1]

    yield start
    for agent in started:
        agent.kill()


StartAgent = Callable[..., Agent]


def test_work_is_handed_over_as_shown(baton: Baton, tmp_path: Path) -> None:
    setup = blocks(section("A five-minute tour"), "sh")[0]
    outputs = run_blocks([setup, *blocks(DOCUMENT, "sh")], baton, tmp_path)
    *before, notified = outputs
    assert before == ["", "", "", "queued\nTell Ann that the report is ready\n"]
    assert json.loads(notified)["status"] == "pending"
    mailer = (tmp_path / "mailer-token").read_text().strip()
    (leased,) = baton.call("POST", "/runs:lease", {}, token=mailer).json()["runs"]
    assert leased["payload"]["params"]["data"] == {"to": "ann", "text": "It is ready"}
    report = {"reports": [{"lease": leased["lease"], "succeeded": {}}]}
    assert baton.call("POST", "/runs:report", report, token=mailer).json()["receipts"][0]["accepted"]


def test_it_does_what_it_is_handed(baton: Baton, start_agent: StartAgent) -> None:
    agent = start_agent(baton)
    agent.outbox.touch()
    data = {"to": "ann", "text": "It's \"ready\": 100 % d'accord ș\n$(reboot)"}
    run = becomes(baton, route(baton, agent.role, data, context={"n": 1}), "succeeded")
    assert agent.outbox.read_text() == f"ann: {data['text']}\n"
    assert run["output"] == {"delivered": True}
    assert run["inputs"] == {
        "task_type": "notification", "description": "Tell somebody", "data": data, "context": {"n": 1},
    }  # fmt: skip
    assert steps(baton, run) == [("address", "mail.address"), ("deliver", "mail.deliver")]
    assert (run["attempt"], run["role"], run["agent_id"]) == (1, agent.role, run["agent_id"])
    # Any task for its role will do.
    manual = baton.create("/tasks", task("By hand", role=agent.role, params={"task_type": "spring_cleaning"}))
    baton.run_now(manual["id"])
    failed = becomes(baton, manual["id"], "failed")
    assert (failed["error"]["class"], failed["error"]["message"]) == (
        "validation", "this agent only does notifications",
    )  # fmt: skip
    assert agent.stop() == 0


def test_it_comes_back_to_what_cannot_be_done_yet(baton: Baton, start_agent: StartAgent) -> None:
    agent = start_agent(baton)
    task_id = route(baton, agent.role, {"to": "ann", "text": "hello"})
    wait_until(lambda: "deferred" in agent.log)
    waiting = last_run(baton, task_id)
    assert (waiting["status"], waiting["error"]["message"]) == ("queued", "there is no outbox")
    agent.outbox.touch()
    run = becomes(baton, task_id, "succeeded")
    assert (run["attempt"] > 1, run["retries"], agent.outbox.read_text()) == (True, 0, "ann: hello\n")
    # What was done at the first attempt was not done again.
    recorded = baton.get(f"/runs/{run['id']}/steps")["items"]
    assert [(step["id"], step["attempt"]) for step in recorded] == [("address", 1), ("deliver", run["attempt"])]


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_it_asks_before_it_writes_to_everybody(baton: Baton, start_agent: StartAgent, decision: str) -> None:
    agent = start_agent(baton)
    agent.outbox.touch()
    data = {"to": "everybody", "text": "lunch", "copies": 2.5}
    task_id = route(baton, agent.role, data)
    asked = becomes(baton, task_id, "awaiting_approval")
    assert asked["lease_owner"] is None
    (question,) = baton.get(f"/approvals?run_id={asked['id']}")["items"]
    assert question["action"] == {"tool": "mail.deliver", "arguments": data}
    treasurer = baton.agent_token(["approvals:decide"])
    path = f"/approvals/{question['id']}/{decision}"
    assert baton.call("POST", path, {"note": "seen"}, token=treasurer).status_code == 200
    if decision == "approve":
        run = becomes(baton, task_id, "succeeded")
        assert baton.get(f"/approvals/{question['id']}")["used_at"] is not None
        assert (run["approval_state"], agent.outbox.read_text()) == ("approved", "everybody: lunch\n")
    else:
        run = becomes(baton, task_id, "failed")
        assert (run["error"]["class"], agent.outbox.read_text()) == ("approval_rejected", "")


def test_it_keeps_what_takes_long_and_stops_what_is_called_off(baton: Baton, start_agent: StartAgent) -> None:
    agent = start_agent(baton)
    # Delivering takes until somebody reads.
    os.mkfifo(agent.outbox)
    kept, called_off = (route(baton, agent.role, {"to": "ann", "text": text}) for text in ("long", "off"))
    first = becomes(baton, kept, "running")["leased_until"]
    wait_until(lambda: last_run(baton, kept)["leased_until"] > first)
    assert agent.outbox.read_text() == "ann: long\n"
    becomes(baton, kept, "succeeded")
    run = becomes(baton, called_off, "running")
    assert baton.call("POST", f"/runs/{run['id']}/cancel", {}).status_code == 200
    becomes(baton, called_off, "canceled")
    # And goes on with the next, which it gives back when it is stopped.
    given_back = route(baton, agent.role, {"to": "ann", "text": "again"})
    becomes(baton, given_back, "running")
    assert agent.stop() == 0
    run = becomes(baton, given_back, "queued")
    assert (run["attempt"], run["lease_owner"]) == (1, None)


@pytest.mark.timeout(180)
def test_it_is_refused_when_its_lease_is_lost(start_baton: StartBaton, start_agent: StartAgent) -> None:
    baton = start_baton()
    # One stands still, and the other forgets to renew.
    still, forgetful = start_agent(baton), start_agent(baton, renew_seconds=120)
    runs = {agent: begun(baton, agent) for agent in (still, forgetful)}
    still.signal(signal.SIGSTOP)
    others = {agent: taken_over(baton, agent) for agent in runs}
    still.signal(signal.SIGCONT)
    # Whoever reads lets it deliver, and report that it has.
    assert forgetful.outbox.read_text() == "ann: hello\n"
    for agent, run_id in runs.items():
        wait_until(lambda agent=agent, run_id=run_id: f"{run_id}: lost" in agent.log)
        assert f'{run_id}: reported "succeeded"' not in agent.log
        run = baton.get(f"/runs/{run_id}")
        assert (run["status"], run["attempt"], run["lease_owner"]) == ("running", 2, others[agent])
        assert steps(baton, run) == [("address", "mail.address")]


def begun(baton: Baton, agent: Agent) -> str:
    """The id of a run that an agent cannot finish before somebody reads its outbox."""
    os.mkfifo(agent.outbox)
    run = becomes(baton, route(baton, agent.role, {"to": "ann", "text": "hello"}), "running")
    wait_until(lambda: bool(steps(baton, run)))
    run_id: str = run["id"]
    return run_id


def taken_over(baton: Baton, agent: Agent) -> str:
    """Has another agent lease the run, once the lease is over; answers who that is."""
    other, worker_id = baton.agent_token(["runs:work"], agent.role), str(uuid4())

    def leases() -> bool:
        asked = {"worker_id": worker_id, "wait_seconds": 10}
        return bool(baton.call("POST", "/runs:lease", asked, token=other).json()["runs"])

    wait_until(leases)
    return worker_id
