"""Logs, prompts, chat and the feed over REST, and the feed live, as server-sent events."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.e2e.conftest import StartBaton
from tests.support.baton import Baton
from tests.support.events import Events, told
from tests.support.waiting import wait_until


@dataclass
class Scribe:
    """An agent that may read and write logs."""

    baton: Baton
    id: str
    token: str

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        return self.baton.call(method, path, body, token=self.token, **headers)

    def log(self, *contents: str, slug: str = "work", **headers: str) -> list[int]:
        entries = [
            {"task_slug": slug, "event_category": "response", "event_type": "text", "content": content}
            for content in contents
        ]
        answer = self.call("POST", f"/agents/{self.id}/logs", {"entries": entries}, **headers)
        assert answer.status_code == 201, answer.text
        indexes: list[int] = answer.json()["entry_indexes"]
        return indexes


@pytest.fixture
def scribe(baton: Baton) -> Scribe:
    return new_scribe(baton)


def new_scribe(baton: Baton) -> Scribe:
    wanted = {"name": f"scribe {uuid4()}", "scopes": ["logs:read", "logs:write"]}
    agent_id = baton.create("/agents", wanted)["id"]
    return Scribe(baton, agent_id, baton.create(f"/agents/{agent_id}/tokens", {})["token"])


@contextmanager
def watching(scribe: Scribe, query: str = "", **headers: str) -> Iterator[Events]:
    """What somebody is told who watches the scribe's own entries."""
    with told(scribe.baton.port, f"/feed:watch?agent_id={scribe.id}{query}", scribe.token, **headers) as events:
        yield events


def contents(watch: Events) -> list[str]:
    """The texts of the entries that were told."""
    entries = (json.loads(event["data"])["entry"] for event in watch.events)
    return [(entry["agent_log"] or {"content": "?"})["content"] for entry in entries if entry]


def test_an_agent_writes_its_log_and_reads_it(scribe: Scribe) -> None:
    assert scribe.log("a", "b") == [0, 1]
    first = scribe.log("c", Idempotency_Key="key")
    assert scribe.log("c", Idempotency_Key="key") == first == [2]
    path = f"/agents/{scribe.id}/logs"
    page = scribe.call("GET", f"{path}?limit=2&event_type=text&event_category=response").json()
    assert [item["content"] for item in page["items"]] == ["c", "b"]
    rest = scribe.call("GET", f"{path}?limit=2&event_type=text&event_category=response&cursor={page['next_cursor']}")
    assert [item["content"] for item in rest.json()["items"]] == ["a"]
    tail = scribe.call("GET", f"{path}:tail?limit=2&verbose=true").json()
    assert ([item["content"] for item in tail["items"]], tail["next_index"]) == (["b", "c"], 3)


def test_who_watches_is_told_and_goes_on_where_it_broke_off(scribe: Scribe) -> None:
    with watching(scribe) as watch:
        scribe.log("a", "b", "c")
        wait_until(lambda: contents(watch) == ["a", "b", "c"])
        last_but_one = watch.events[2]["id"]
    scribe.log("d")
    with watching(scribe, "&after=0", Last_Event_ID=last_but_one) as watch:
        wait_until(lambda: contents(watch) == ["c", "d"])
        scribe.log("e")
        wait_until(lambda: contents(watch) == ["c", "d", "e"])


def test_bad_input_is_named_and_stores_nothing(scribe: Scribe) -> None:
    path = f"/agents/{scribe.id}/logs"
    good = {"event_category": "hook", "event_type": "Stop"}
    for entries, places in (
        ([], ["entries"]),
        ([good] * 1001, ["entries"]),
        ([good, {"event_category": "hook"}], ["entries[1].event_type"]),
        (
            [good, good | {"event_category": "both"}, good | {"when": 1}],
            ["entries[1].event_category", "entries[2].when"],
        ),
        ([good | {"timestamp": "yesterday"}], ["entries[0].timestamp"]),
        ([good | {"payload": [1]}], ["entries[0].payload"]),
        ("all", ["entries"]),
    ):
        answer = scribe.call("POST", path, {"entries": entries})
        assert answer.status_code == 400, answer.text
        assert [error["field"] for error in answer.json()["errors"]] == places
    assert scribe.call("GET", path).json()["items"] == []
    other = new_scribe(scribe.baton)
    refused = scribe.call("POST", f"/agents/{other.id}/logs", {"entries": [good]})
    assert (refused.status_code, refused.json()["reason"]) == (403, "SCOPE_MISSING")
    for query, place in (
        ("after=-1", "after"),
        ("after=x", "after"),
        (f"after={2**62}", "after"),
        ("agent_id=7", "agent_id"),
        ("source_type=all", "source_type"),
        ("limit=1", "limit"),
    ):
        answer = scribe.call("GET", f"/feed:watch?{query}")
        assert answer.status_code == 400, answer.text
        assert answer.json()["errors"][0]["field"].startswith(place)
    answer = scribe.call("GET", "/feed:watch", Last_Event_ID="x")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "Last-Event-ID")
    assert scribe.baton.call("GET", "/feed:watch", token="").status_code == 401


def test_a_client_of_the_earlier_registry_goes_on(baton: Baton, scribe: Scribe) -> None:
    wanted = {"scopes": ["agents:admin"]}
    boss = baton.call("POST", "/orchestrator", wanted).json()["orchestrator"]["id"]
    words = f"hello {uuid4()}"
    sent = scribe.call("POST", "/send_chat", {"message": words, "orchestrator_agent_id": boss})
    assert (sent.status_code, sent.json()["sent_by"]) == (201, scribe.id)
    loaded = scribe.call("POST", "/load_chat", {"orchestrator_agent_id": boss, "limit": 1}).json()
    assert [message["message"] for message in loaded["messages"]] == [words]
    assert loaded["turn_count"] >= 1
    scribe.log("a", "b", slug="fix-it")
    events = baton.get(f"/get_events?agent_id={scribe.id}&task_slug=fix-it&event_types=all&limit=50&offset=0")
    assert [event["agent_log"]["content"] for event in events["events"]] == ["a", "b"]
    assert {event["source_type"] for event in events["events"]} == {"agent_log"}


def test_prompts_and_chat_are_in_the_audit_and_log_lines_are_not(baton: Baton, scribe: Scribe) -> None:
    prompt = scribe.call("POST", f"/agents/{scribe.id}/prompts", {"author": "engineer", "prompt_text": "Do it"})
    assert prompt.status_code == 201, prompt.text
    assert scribe.call("GET", f"/prompts/{prompt.json()['id']}").json() == prompt.json()
    assert scribe.call("GET", f"/agents/{scribe.id}/prompts").json()["items"] == [prompt.json()]
    scribe.log("a")
    line = {"level": "warning", "message": f"disk of {scribe.id}"}
    assert scribe.call("POST", "/system-logs", {"entries": [line]}).status_code == 201
    found = scribe.call("GET", f"/system-logs?level=warning&message_contains=DISK OF {scribe.id}").json()
    assert [item["agent_id"] for item in found["items"]] == [scribe.id]
    wait_until(lambda: baton.get(f"/audit?actor={scribe.id}")["items"])
    assert [entry["action"] for entry in baton.get(f"/audit?actor={scribe.id}")["items"]] == ["prompt.record"]


@pytest.mark.parametrize("lost", ["token", "agent", "scope"])
def test_who_loses_a_right_is_told_no_more(baton: Baton, scribe: Scribe, lost: str) -> None:
    with watching(scribe) as watch:
        if lost == "token":
            [token] = baton.get(f"/agents/{scribe.id}/tokens")["items"]
            answer = baton.call("DELETE", f"/agents/{scribe.id}/tokens/{token['id']}")
        elif lost == "agent":
            answer = baton.call("DELETE", f"/agents/{scribe.id}")
        else:
            answer = baton.call("PUT", f"/agents/{scribe.id}", {"scopes": ["logs:write"]})
        assert answer.ok, answer.text
        since = time.monotonic()
        wait_until(lambda: watch.events[-1].get("event") == "problem")
        # 5, and what a busy machine takes on top.
        assert time.monotonic() - since < 10
        reason = "SCOPE_MISSING" if lost == "scope" else "TOKEN_INVALID"
        assert json.loads(watch.events[-1]["data"])["reason"] == reason


def test_baton_stops_while_somebody_watches(start_baton: StartBaton) -> None:
    baton = start_baton()
    scribe = new_scribe(baton)
    with watching(scribe) as watch:
        scribe.log("last")
        wait_until(lambda: contents(watch) == ["last"])
        assert baton.stop() == 0
    baton.start()
    # What was told before is not told again.
    with watching(scribe, Last_Event_ID=watch.events[-1]["id"]) as back:
        scribe.log("first")
        wait_until(lambda: contents(back) == ["first"])
