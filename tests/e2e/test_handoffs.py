"""A whole build by five agents who only ever ask for runs and report them, while services are killed under them."""

import os
import signal
from pathlib import Path
from typing import Any

import yaml

from services.chassis.ids import new_id
from tests.e2e.conftest import StartBaton
from tests.integration.workflows.running import WAY
from tests.support.baton import ROOT, Baton
from tests.support.otlp import Receiver
from tests.support.waiting import wait_until

BUILD = Path(ROOT, "services", "workflows", "templates", "build.yaml")
KILLED = {"discovery": ["workflows"], "implementation": ["tasks"], "testing": ["tasks", "workflows"]}
"""What is killed as soon as the work of a state has been reported."""


def test_five_agents_build_something_by_runs_alone(start_traced: StartBaton, receiver: Receiver) -> None:
    baton = start_traced()
    baton.create("/api/workflows/templates", {"source": yaml.safe_dump(_with_runs())})
    agents = {role: baton.agent_token(["runs:work"], role) for _, role in WAY}
    started = baton.call("POST", "/api/workflows/shop/start", {"build_id": new_id(), "template": "build_by_runs"})
    workflow_id = started.json()["workflow_id"]
    place = f"/api/workflows/{workflow_id}"
    handed: dict[str, Any] = {}
    for state, role in WAY:
        run = wait_until(lambda: _leased(baton, agents[role]))  # noqa: B023
        params = run["payload"]["params"]
        assert (params["context"]["state"], params["data"]["previous_phase_output"]) == (state, handed)
        handed = {"done": state}
        outcome = {"lease": run["lease"], "succeeded": {"output": {"phase_result": handed}}}
        reported = wait_until(lambda: _answered(baton, "/runs:report", {"reports": [outcome]}, agents[role]))  # noqa: B023
        assert reported["receipts"][0]["accepted"]
        for name in KILLED.get(state, []):
            os.kill(baton.children()[name], signal.SIGKILL)
    wait_until(lambda: _status(baton, place).get("status") == "complete")
    assert _status(baton, place)["progress"] == 100.0
    _one_run_for_each(baton, workflow_id)
    _one_trace_for_each(baton, place, receiver)


def _with_runs() -> dict[str, Any]:
    """The template `build`, by which each state asks for a run."""
    template: dict[str, Any] = yaml.safe_load(BUILD.read_text())
    for state in template["states"]:
        state["run_for_role"] = "owner_role" in state and not state.get("terminal")
    return {name: value for name, value in template.items() if name != "version"} | {"name": "build_by_runs"}


def _answered(baton: Baton, path: str, body: dict[str, Any], token: str) -> Any:
    """What a request is answered with; nothing while a service that it needs is away."""
    answer = baton.call("POST", path, body, token=token)
    assert answer.ok or answer.status_code == 503, answer.text
    return answer.json() if answer.ok else None


def _leased(baton: Baton, token: str) -> Any:
    answer = _answered(baton, "/runs:lease", {"worker_id": new_id(), "wait_seconds": 5}, token)
    return answer["runs"][0] if answer and answer["runs"] else None


def _status(baton: Baton, place: str) -> Any:
    answer = baton.call("GET", f"{place}/status")
    assert answer.ok or answer.status_code == 503, answer.text
    return answer.json() if answer.ok else {}


def _one_run_for_each(baton: Baton, workflow_id: str) -> None:
    """One task for each state that was entered, and one run of it."""
    handoffs = baton.get(f"/api/workflows/handoffs?workflow_id={workflow_id}")["items"]
    tasks = [workflow_id, *(one["id"] for one in handoffs if one["to_state"] != "complete")]
    assert len(tasks) == len(WAY)
    for task_id in tasks:
        (run,) = baton.get(f"/runs?task_id={task_id}")["items"]
        assert (run["status"], run["attempt"]) == ("succeeded", 1)


def _one_trace_for_each(baton: Baton, place: str, receiver: Receiver) -> None:
    """Each advance is in the trace of the report that it followed from, and linked to what came before it."""
    events = list(reversed(baton.get(f"{place}/events")["items"]))
    traces = [event["trace_id"] for event in events]
    assert [event["event_type"] for event in events] == ["workflow_started"] + ["state_advanced"] * len(WAY)
    assert len(set(traces)) == len(traces)
    # What a process had not exported yet when it was killed is lost. The last two are whole.
    for before, trace_id in zip(traces[-3:], traces[-2:], strict=False):
        wait_until(lambda: before in _linked(receiver, trace_id))  # noqa: B023
        spans = receiver.trace(trace_id)
        assert {"POST /runs:report", "workflows.report"} <= {span.name for span in spans}
        assert {"gateway", "tasks", "workflows"} <= {span.service for span in spans}


def _linked(receiver: Receiver, trace_id: str) -> set[str]:
    return {linked for span in receiver.trace(trace_id) for linked in span.links}
