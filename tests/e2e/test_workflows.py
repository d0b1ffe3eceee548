"""Workflows over REST: five agents build something, and pipelines do."""

from typing import Any

import pytest

from services.chassis.ids import new_id
from tests.e2e.test_readme import blocks, section
from tests.e2e.test_readme import run as run_blocks
from tests.integration.workflows.running import WAY
from tests.support.baton import ROOT, Baton, task
from tests.support.waiting import wait_until

SCOPES = ["workflows:read", "workflows:write", "tasks:read", "runs:read"]
DOCUMENT = (ROOT / "docs" / "workflows.md").read_text()


@pytest.fixture(scope="module")
def tokens(baton: Baton) -> dict[str, str]:
    """A token of an agent of each role."""
    found = {}
    for role in dict.fromkeys(role for _, role in WAY):
        agent = baton.create("/agents", {"name": f"{role}-{new_id()[-8:]}", "role": role, "scopes": SCOPES})
        found[role] = baton.create(f"/agents/{agent['id']}/tokens", {})["token"]
    return found


def started(baton: Baton, token: str | None = None) -> str:
    answer = baton.call("POST", "/api/workflows/shop/start", {"build_id": new_id()}, token=token)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["workflow_id"])


def test_five_agents_build_something(baton: Baton, tokens: dict[str, str]) -> None:
    workflow_id = started(baton, tokens["q_assistant"])
    place = f"/api/workflows/{workflow_id}"
    for state, role in WAY:
        body = {"role": role, "completed_state": state, "phase_result": {"done": state}}
        other = next(one for one in tokens if one != role)
        refused = baton.call("POST", f"{place}/advance", body, token=tokens[other])
        assert (refused.status_code, refused.json()["reason"]) == (403, "ROLE_NOT_HELD")
        etag = baton.call("GET", place, token=tokens[role]).headers["ETag"]
        moved = baton.call("POST", f"{place}/advance", body, token=tokens[role], If_Match=etag)
        assert moved.ok, moved.text
        stale = baton.call("POST", f"{place}/advance", body, token=tokens[role], If_Match=etag)
        assert stale.status_code in (409, 412)
    status = baton.get(f"{place}/status")
    assert (status["status"], status["progress"], status["next_expectations"]) == ("complete", 100.0, None)
    assert baton.get(f"{place}/history")["handoff_count"] == len(WAY)
    assert baton.get("/api/workflows/project/shop/stats")["completed"] >= 1
    kinds = [event["event_type"] for event in baton.get(f"{place}/events")["items"]]
    assert kinds == ["state_advanced"] * len(WAY) + ["workflow_started"]
    entries = wait_until(lambda: _entries(baton, workflow_id, len(WAY) + 1))
    assert {entry["action"] for entry in entries} == {"workflow.start", "workflow.advance"}


@pytest.mark.parametrize("away", ["tasks", "sessions"])
def test_a_workflow_goes_on_or_stays_whole_while_others_are_away(
    baton: Baton, tokens: dict[str, str], away: str
) -> None:
    token = tokens["q_assistant"]
    workflow_id = started(baton, token)
    place, done = f"/api/workflows/{workflow_id}", {"role": "q_assistant", "completed_state": "discovery"}
    with baton.standing_still(away):
        answer = baton.call("POST", f"{place}/advance", done, token=token)
        assert answer.status_code in ((200,) if away == "tasks" else (200, 503)), answer.text
    state = wait_until(lambda: baton.get(place))["current_state"]
    assert state == ("planning" if answer.ok else "discovery")
    # What was to be told is told later, and once.
    entries = wait_until(lambda: _entries(baton, workflow_id, 1 + answer.ok))
    assert sorted(entry["action"] for entry in entries) == ["workflow.advance", "workflow.start"][1 - answer.ok :]


def _entries(baton: Baton, workflow_id: str, count: int) -> Any:
    found = baton.get(f"/audit?resource=workflow/{workflow_id}")["items"]
    return found if len(found) == count else None


def test_a_pipeline_starts_and_advances_what_a_task_hears_of(baton: Baton) -> None:
    owner = baton.create("/agents", {"name": f"owner-{new_id()[-8:]}", "role": "q_assistant", "scopes": SCOPES})["id"]
    heard = task(
        "Hears", {"uses": "echo.test", "with": {"state": "${event.to_state}"}, "save_as": "heard"},
        schedule_kind="event", schedule_expr="workflow.advanced",
    )  # fmt: skip
    listener = baton.create("/tasks", heard)["id"]
    build = new_id()
    pipeline = task(
        "Builds",
        {"uses": "workflows.start", "with": {"project_id": "p", "build_id": build}, "save_as": "begun"},
        {
            "id": "advance",
            "uses": "workflows.advance",
            "with": {
                "workflow_id": "${steps.begun.workflow_id}",
                "role": "q_assistant",
                "completed_state": "${steps.begun.initial_state}",
                "phase_result": {"user_input": "x"},
            },
            "save_as": "moved",
        },
        created_by=owner,
    )
    run = baton.finished(baton.run_now(baton.create("/tasks", pipeline)["id"]))
    assert run["status"] == "succeeded", run["error"]
    moved = run["output"]["moved"]
    assert (moved["previous_state"], moved["new_state"], moved["is_complete"]) == ("discovery", "planning", False)
    assert moved["handoff_data"]["previous_phase_output"] == {"user_input": "x"}
    runs = wait_until(lambda: baton.get(f"/runs?task_id={listener}&status=succeeded")["items"])
    assert baton.get(f"/runs/{runs[0]['id']}")["output"] == {"heard": {"state": "planning"}}


def test_a_pipeline_speaks_for_its_owner_s_role_only(baton: Baton) -> None:
    owner = baton.create("/agents", {"name": f"owner-{new_id()[-8:]}", "role": "code_writer", "scopes": SCOPES})["id"]
    given = {"workflow_id": started(baton), "role": "q_assistant", "completed_state": "discovery"}
    pipeline = task("Oversteps", {"uses": "workflows.advance", "with": given}, created_by=owner)
    run = baton.finished(baton.run_now(baton.create("/tasks", pipeline)["id"]))
    assert (run["status"], run["error"]["class"]) == ("failed", "validation")
    assert "the caller's role is 'code_writer'" in run["error"]["message"]


def test_the_blocks_of_the_document_do_what_they_say(baton: Baton, tmp_path: Any) -> None:
    setup = blocks(section("A five-minute tour"), "sh")[0]
    outputs = run_blocks([setup, *blocks(DOCUMENT, "sh")], baton, tmp_path)
    assert outputs == ["", "", "planning\n"]
