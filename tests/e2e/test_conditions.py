"""A task that waits for a condition, over REST, with a real tool whose answer changes."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.baton import ROOT, Baton, task
from tests.support.effects_server import effects, show
from tests.support.waiting import wait_until


def add_shop(baton: Baton, noted: Path) -> str:
    """Registers a tool server whose tool `look` answers what is shown beside `noted`; answers its name."""
    command = [sys.executable, "-m", "tests.support.effects_server", str(noted)]
    name = f"shop{len(baton.get('/tool-servers?limit=200')['items'])}"
    server = {"name": name, "transport": "stdio", "command": command, "env": {"PYTHONPATH": str(ROOT)}}
    baton.create("/tool-servers", server)
    wait_until(lambda: f"{name}.look" in {tool["address"] for tool in baton.get("/tools?limit=200")["items"]}, 30)
    return name


@pytest.mark.timeout(180)
def test_what_becomes_true_twice_fires_twice(baton: Baton, tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    server = add_shop(baton, noted)
    show(noted, "closed")
    waiting = task(
        "Tell that the shop is open",
        {"uses": f"{server}.note", "with": {"text": "it is ${event.result.shown}"}},
        params={"wanted": "open"},
        schedule_kind="condition",
        schedule_expr="result.shown == params.wanted",
        condition={"probe": {"uses": f"{server}.look", "with": {}}, "every_seconds": 5},
    )
    shown = baton.call("POST", "/tasks:preview", {**waiting, "sample": {"result": {"shown": "open"}}}).json()
    assert (shown["valid"], shown["condition_holds"]) == (True, True), shown
    task_id = baton.create("/tasks", waiting)["id"]

    def told() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = baton.get(f"/tasks/{task_id}/evaluations?limit=200")["items"][::-1]
        return items

    for number, text in enumerate(["closed", "open", "closed", "open"], start=1):
        show(noted, text)
        seen = len(told())
        # One look may have been under way as the answer changed; the second after it is sure to see it.
        wait_until(lambda seen=seen: len(told()) >= seen + 2)
        assert told()[-1]["holds"] is (text == "open"), told()
        wait_until(lambda number=number: len(effects(noted)) == number // 2)
    assert effects(noted) == ["it is open", "it is open"]
    fired = [one for one in told() if one.get("outcome")]
    assert [one["outcome"] for one in fired] == ["ran", "ran"]
    assert fired[0]["excerpt"] == '{"shown":"open"}'
    assert [baton.finished(one["run_id"])["status"] for one in fired] == ["succeeded", "succeeded"]
    occurrences = baton.get(f"/tasks/{task_id}/occurrences")["items"]
    assert [one["run_id"] for one in occurrences[::-1]] == [one["run_id"] for one in fired]
    explained = baton.get(f"/tasks/{task_id}/explain")
    assert [blocker["code"] for blocker in explained["blockers"]] == ["condition_unchanged"], explained
    assert baton.call("POST", f"/tasks/{task_id}/cancel", {}).status_code == 200
