"""Events over REST: published as the earlier scheduler's clients do, seen by pipelines, replayed, told about."""

from typing import Any
from uuid import uuid4

from tests.support.baton import Baton, task
from tests.support.waiting import wait_until


def post(baton: Baton, path: str, body: Any, status: int = 202, **headers: str) -> Any:
    response = baton.call("POST", path, body, **headers)
    assert response.status_code == status, response.text
    return response.json()


def waiting_for(baton: Baton, topic: str, *steps: dict[str, Any], **fields: Any) -> str:
    """A task that waits for a topic; answers its id."""
    given = {"schedule_kind": "event", "schedule_expr": topic, **fields}
    task_id: str = baton.create("/tasks", task("Event", *steps, **given))["id"]
    return task_id


def faulty_fields(response: Any) -> list[str]:
    assert response.status_code == 400, response.text
    return [error["field"] for error in response.json()["errors"]]


SEEN = {
    "uses": "echo.test",
    "if": "event.total > `100`",
    "with": {"id": "${event.id}", "total": "${event.total}", "topic": "${run.topic}", "event": "${run.event_id}"},
    "save_as": "seen",
}


def test_an_event_reaches_the_pipeline(baton: Baton) -> None:
    topic = f"order.n{uuid4().hex}"
    task_id = waiting_for(baton, f"{topic}.*", SEEN, event_filter="event.total > 50.0")
    answer = post(baton, "/events/", {"topic": f"{topic}.created", "payload": {"id": 7, "total": 120.5}})
    details = answer["details"]
    assert (answer["success"], details["topic"], details["triggered_tasks"]) == (True, f"{topic}.created", [task_id])
    assert details["event_id"] == details["stream_id"]
    assert details["published_at"].endswith("Z")
    (delivery,) = details["deliveries"]
    assert (delivery["outcome"], delivery["reason"], details["complete"]) == ("ran", "", True)
    run = baton.finished(delivery["run_id"])
    assert (run["status"], run["event_id"]) == ("succeeded", details["event_id"])
    assert run["output"] == {
        "seen": {"id": 7, "total": 120.5, "topic": f"{topic}.created", "event": details["event_id"]}
    }
    assert [found["id"] for found in baton.get(f"/runs?event_id={details['event_id']}")["items"]] == [run["id"]]
    # The run belongs to the trace of who published.
    assert baton.get(f"/events/{details['event_id']}")["event"]["trace_id"] == run["trace_id"]

    filtered = post(baton, "/events", {"topic": f"{topic}.created", "payload": {"total": 10}})["details"]
    assert (filtered["triggered_tasks"], filtered["deliveries"][0]["outcome"]) == ([], "filtered")
    unmatched = post(baton, "/events", {"topic": topic, "payload": {}})["details"]
    assert (unmatched["deliveries"], unmatched["reason"]) == ([], "no active event task has a matching topic")
    listed = baton.get(f"/events?topic={topic}.*")["items"]
    assert [(event["id"], event["matched_tasks"], event["triggered_runs"]) for event in listed] == [
        (filtered["event_id"], 1, 0), (details["event_id"], 1, 1),
    ]  # fmt: skip
    assert [event["id"] for event in baton.get(f"/events?topic={topic}&matched=false")["items"]] == [
        unmatched["event_id"]
    ]


def test_a_repeated_request_is_one_event(baton: Baton) -> None:
    topic, key = f"once.n{uuid4().hex}", str(uuid4())
    waiting_for(baton, topic, SEEN)
    body = {"topic": topic, "payload": {"id": 1}}
    first = post(baton, "/events", body, Idempotency_Key=key)
    again = baton.call("POST", "/events", body, Idempotency_Key=key)
    assert (again.status_code, again.json(), again.headers["Idempotent-Replayed"]) == (202, first, "true")
    assert len(baton.get(f"/events?topic={topic}")["items"]) == 1
    other = baton.call("POST", "/events", body | {"payload": {"id": 2}}, Idempotency_Key=key)
    assert (other.status_code, other.json()["reason"]) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_an_event_is_published_anew(baton: Baton) -> None:
    topic = f"anew.n{uuid4().hex}"
    old = post(baton, "/events", {"topic": topic, "payload": {"id": 7, "total": 101}})["details"]
    task_id = waiting_for(baton, topic, SEEN)
    anew = post(baton, f"/events/{old['event_id']}/replay", {"task_id": task_id})["details"]
    assert (anew["replay_of"], anew["triggered_tasks"]) == (old["event_id"], [task_id])
    run = baton.finished(anew["deliveries"][0]["run_id"])
    assert run["output"]["seen"]["event"] == anew["event_id"]
    missing = baton.call("POST", f"/events/{uuid4()}/replay", {})
    assert (missing.status_code, missing.json()["reason"]) == (404, "EVENT_NOT_FOUND")


def test_the_end_of_a_run_starts_what_waits_for_it(baton: Baton) -> None:
    first = baton.create("/tasks", task("First", {"uses": "echo.test"}))["id"]
    second = waiting_for(
        baton,
        "run.succeeded",
        {"uses": "echo.test", "with": {"after": "${event.run_id}"}, "save_as": "seen"},
        event_filter=f"event.task_id == '{first}'",
    )
    run_id = post(baton, f"/tasks/{first}/run_now", {}, 200)["details"]["run_id"]
    (run,) = wait_until(lambda: baton.get(f"/runs?task_id={second}&status=succeeded")["items"])
    assert baton.get(f"/runs/{run['id']}")["output"] == {"seen": {"after": run_id}}
    event = baton.get(f"/events/{run['event_id']}")
    assert (event["event"]["topic"], event["event"]["origin"], event["event"]["depth"]) == ("run.succeeded", "baton", 1)
    # Its own end is filtered out, and says so.
    explained = f"/tasks/{second}/explain"
    wait_until(lambda: baton.get(explained)["last_delivery"]["outcome"] == "filtered")
    assert baton.call("POST", f"/tasks/{second}/cancel", {}).status_code == 200


def test_what_earlier_clients_read(baton: Baton) -> None:
    topic = f"earlier.n{uuid4().hex}"
    task_id, agent_id = waiting_for(baton, topic), baton.get("/tasks?limit=1")["items"][0]["created_by"]
    post(baton, "/events", {"topic": topic, "payload": {"id": 1}, "source_agent_id": agent_id})
    topics = baton.get("/events/topics")
    (found,) = [one for one in topics["topics"] if one["topic"] == topic]
    assert (found["active_tasks"], found["task_ids"]) == (1, [task_id])
    assert topics["total_topics"] >= 1
    recent = baton.get("/events/stream/recent?count=1")
    (event,) = recent["events"]
    assert (recent["total_events"], event["topic"], event["payload"]) == (1, topic, {"id": 1})
    assert event["source_agent_id"] == event["published_by"] == agent_id
    assert {"event_id", "stream_id", "published_at"} <= set(event)
    cleaned = baton.call("DELETE", "/events/stream/cleanup?max_age_hours=876000")
    assert cleaned.status_code == 200
    assert (cleaned.json()["success"], cleaned.json()["details"]["deleted_count"]) == (True, 0)
    assert isinstance(cleaned.json()["details"]["cutoff_timestamp"], int)


def test_what_is_refused_is_named(baton: Baton) -> None:
    assert faulty_fields(baton.call("POST", "/events", {"topic": "a b", "payload": {}})) == ["topic"]
    assert faulty_fields(baton.call("POST", "/events", {"topic": "run.mine", "payload": {}})) == ["topic"]
    assert faulty_fields(baton.call("POST", "/events", {"topic": "a"})) == ["payload"]
    assert baton.call("POST", "/events", {"topic": "a", "payload": [1]}).status_code == 400
    assert faulty_fields(baton.call("GET", "/events/stream/recent?count=1000")) == ["count"]
    assert faulty_fields(baton.call("GET", "/events?topic=a..b")) == ["topic"]
    faulty = task("Faulty", schedule_kind="event", schedule_expr="a", event_filter="event.")
    assert faulty_fields(baton.call("POST", "/tasks", faulty)) == ["event_filter"]
    reader = baton.create("/agents", {"name": f"reader-{uuid4()}", "scopes": ["events:read"]})
    token = baton.create(f"/agents/{reader['id']}/tokens", {"scopes": ["events:read"]})["token"]
    assert baton.call("GET", "/events", token=token).status_code == 200
    for method, path in (("POST", "/events"), ("DELETE", "/events/stream/cleanup")):
        refused = baton.call(method, path, {"topic": "a", "payload": {}} if method == "POST" else None, token=token)
        assert (refused.status_code, refused.json()["reason"]) == (403, "SCOPE_MISSING")
    publisher = baton.create("/agents", {"name": f"publisher-{uuid4()}", "scopes": ["events:publish"]})
    token = baton.create(f"/agents/{publisher['id']}/tokens", {"scopes": ["events:publish"]})["token"]
    body = {"topic": "a", "payload": {}, "source_agent_id": reader["id"]}
    refused = baton.call("POST", "/events", body, token=token)
    assert (refused.status_code, refused.json()["reason"]) == (403, "SOURCE_NOT_CALLER")
