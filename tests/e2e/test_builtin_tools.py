"""What pipelines do in Baton itself: publish events and run tasks, in the name of their owner."""

from typing import Any

import pytest

from services.chassis.ids import new_id
from tests.support.baton import Baton, task
from tests.support.waiting import wait_until

MAX_DEPTH = 8


def publishing(topic: str, **more: Any) -> dict[str, Any]:
    """A step that publishes an event."""
    return {"id": "tell", "uses": "events.publish", "with": {"topic": topic, **more}, "save_as": "told"}


def starting(task_id: str, **params: Any) -> dict[str, Any]:
    """A step that runs a task."""
    return {"id": "start", "uses": "tasks.run", "with": {"task_id": task_id, "params": params}, "save_as": "started"}


def logging(**entry: Any) -> dict[str, Any]:
    """A step that writes to its owner's log."""
    return {"id": "log", "uses": "sessions.log", "with": entry, "save_as": "logged"}


def create(baton: Baton, title: str, *steps: dict[str, Any], token: str | None = None, **fields: Any) -> str:
    response = baton.call("POST", "/tasks", task(title, *steps, **fields), token=token)
    assert response.status_code == 201, response.text
    task_id: str = response.json()["id"]
    return task_id


def run_of(baton: Baton, task_id: str, token: str) -> Any:
    started = baton.call("POST", f"/tasks/{task_id}/run_now", {}, token=token)
    assert started.status_code == 200, started.text
    return baton.finished(started.json()["details"]["run_id"])


def test_a_run_publishes_an_event_and_starts_a_task_of_the_same_owner(baton: Baton) -> None:
    owner = baton.agent_token(["tasks:write", "tasks:read", "runs:read", "events:publish", "events:read"])
    topic = f"billing.{new_id()}"
    listener = create(
        baton,
        "Listens",
        {"uses": "echo.test", "with": {"paid": "${event.paid}"}, "save_as": "heard"},
        token=owner,
        schedule_kind="event",
        schedule_expr=topic,
    )
    helper = create(
        baton,
        "Helps",
        {"uses": "echo.test", "with": {"n": "${params.n}"}, "save_as": "done"},
        token=owner,
        params={"n": 0},
    )
    caller = create(
        baton, "Calls", publishing(topic, payload={"paid": 7}), starting(helper, n="${length('four')}"), token=owner
    )

    run = run_of(baton, caller, owner)

    assert run["status"] == "succeeded", run["error"]
    told, started = run["output"]["told"], run["output"]["started"]
    assert told["triggered_tasks"] == [listener]
    assert baton.finished(started["run_id"])["output"] == {"done": {"n": 4}}
    event = baton.get(f"/events/{told['event_id']}")["event"]
    assert (event["published_by"], event["depth"]) == (run["created_by"], 1)
    heard = baton.finished(baton.get(f"/runs?task_id={listener}")["items"][0]["id"])
    assert heard["output"] == {"heard": {"paid": 7}}


def test_a_run_writes_to_the_log_of_its_owner(baton: Baton) -> None:
    agent = baton.create("/agents", {"name": f"owner-{new_id()}", "scopes": ["tasks:read", "logs:write"]})
    whole = {
        "content": "Asked",
        "event_category": "hook",
        "event_type": "Stop",
        "task_slug": "receipts",
        "session_id": "s-1",
        "summary": "In short",
        "payload": {"n": 1},
    }
    task_id = create(baton, "Logs", logging(content="Begun"), logging(**whole) | {"id": "b", "save_as": "b"},
                     logging(content="Told", task_slug="receipts") | {"id": "c", "save_as": "c"},
                     created_by=agent["id"])  # fmt: skip

    run = run_of(baton, task_id, baton.admin_token)

    assert run["output"] == {"logged": {"entry_index": 0}, "b": {"entry_index": 0}, "c": {"entry_index": 1}}
    told, asked, begun = baton.get(f"/agents/{agent['id']}/logs")["items"]
    assert {name: asked[name] for name in whole} == whole
    assert (begun["event_category"], begun["event_type"], begun["task_slug"]) == ("response", "text", "")
    assert (told["content"], told["entry_index"]) == ("Told", 1)


@pytest.mark.parametrize(
    ("step", "scope"),
    [
        (publishing("billing.paid"), "events:publish"),
        (starting(new_id()), "tasks:write"),
        (logging(content="x"), "logs:write"),
    ],
)
def test_a_run_may_no_more_than_its_owner(baton: Baton, step: dict[str, Any], scope: str) -> None:
    agent = baton.create("/agents", {"name": f"owner-{new_id()}", "scopes": ["tasks:read"]})
    task_id = create(baton, "Oversteps", step, created_by=agent["id"])

    run = run_of(baton, task_id, baton.admin_token)

    assert (run["status"], run["attempt"]) == ("failed", 1)
    assert run["error"]["class"] == "validation"
    assert f"agent {agent['id']} does not hold {scope}" in run["error"]["message"]


def test_a_run_starts_no_task_of_somebody_else(baton: Baton) -> None:
    others = create(baton, "Somebody else's", token=baton.agent_token(["tasks:write", "tasks:read"]))
    owner = baton.agent_token(["tasks:write", "tasks:read", "runs:read"])

    run = run_of(baton, create(baton, "Trespasses", starting(others), token=owner), owner)

    assert (run["status"], run["error"]["class"]) == ("failed", "validation")
    assert baton.get(f"/runs?task_id={others}")["items"] == []


def test_a_bad_topic_is_told_by_its_field(baton: Baton) -> None:
    run = run_of(baton, create(baton, "Mumbles", publishing("run.succeeded")), baton.admin_token)

    assert (run["status"], run["error"]["class"]) == ("failed", "validation")
    assert run["error"]["message"].startswith("topic ")


def test_a_bad_entry_is_told_by_its_field(baton: Baton) -> None:
    run = run_of(baton, create(baton, "Slurs", logging(content="x", event_type="a b")), baton.admin_token)

    assert (run["status"], run["error"]["class"]) == ("failed", "validation")
    assert run["error"]["message"].startswith("event_type does not match")


@pytest.mark.timeout(120)
def test_what_starts_itself_comes_to_an_end(baton: Baton) -> None:
    recurrent = create(baton, "Recurs")
    pipeline = {"payload": {"pipeline": [starting(recurrent)], "params": {}}}
    changed = baton.call("PUT", f"/tasks/{recurrent}", pipeline)
    assert changed.status_code == 200, changed.text
    topic = f"echo.{new_id()}"
    echo = create(baton, "Echoes", publishing(topic), schedule_kind="event", schedule_expr=topic)

    baton.run_now(recurrent)
    published = baton.call("POST", "/events", {"topic": topic, "payload": {}})
    assert published.status_code == 202, published.text

    # The first one is run by hand; eight follow from it, and what the last one starts would be one too many.
    runs = _quiet(baton, recurrent)
    assert [run["status"] for run in runs] == ["failed"] + ["succeeded"] * MAX_DEPTH
    assert "a loop is cut here" in runs[0]["error"]["message"]
    # Published by hand at depth 0; those of depth 1 to 8 make a run each.
    assert [run["status"] for run in _quiet(baton, echo)] == ["succeeded"] * (MAX_DEPTH + 1)


def _quiet(baton: Baton, task_id: str) -> list[Any]:
    """The runs of a task, newest first, once there are nine and all have ended."""

    def ended() -> list[Any] | None:
        runs: list[Any] = baton.get(f"/runs?task_id={task_id}")["items"]
        over = all(run["status"] in ("succeeded", "failed") for run in runs)
        return runs if len(runs) > MAX_DEPTH and over else None

    found: list[Any] = wait_until(ended)
    return found
