"""Pipelines as large as they may be, through all processes."""

import json

import pytest

from tests.support.baton import Baton, task

_MOST_GROWTH_KIB = 24 * 1024


def peak_kib(pid: int) -> int:
    """The most memory that a process has had so far (VmHWM of proc_pid_status(5))."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


@pytest.mark.timeout(240)
def test_ten_thousand_items_need_no_more_memory_than_a_thousand(baton: Baton) -> None:
    """Of 10 000 outputs of 4 KiB each the worker holds none: together they would be 40 MiB."""
    each = {
        "id": "each",
        "uses": "echo.test",
        "foreach": {"items": "${params.items}", "parallel": 50},
        "with": {"item": "${item}", "text": "${params.text}"},
    }

    def run(items: int) -> str:
        params = {"items": list(range(items)), "text": "x" * 4096}
        run_id = baton.run_now(baton.create("/tasks", task(f"{items} items", each, params=params))["id"])
        finished = baton.finished(run_id, timeout=150)
        assert (finished["status"], finished["attempt"]) == ("succeeded", 1), finished.get("error")
        return run_id

    worker = baton.children()["worker"]
    run(1000)
    before = peak_kib(worker)
    run_id = run(10_000)
    assert peak_kib(worker) - before < _MOST_GROWTH_KIB
    (step,) = baton.get(f"/runs/{run_id}/steps")["items"]
    assert step["items"] == {"total": 10_000, "succeeded": 10_000, "failed": 0}
    last = baton.get(f"/runs/{run_id}/steps/each/items?limit=1")["items"][0]
    assert (last["item"], last["status"], last["output"]["item"]) == (0, "succeeded", 0)


@pytest.mark.timeout(120)
def test_a_thousand_steps_run_in_order(baton: Baton) -> None:
    steps = [{"uses": "echo.test", "with": {"n": 0}, "save_as": "s0"}]
    steps += [
        {"uses": "echo.test", "with": {"n": f"${{steps.s{index - 1}.n}}", "at": index}, "save_as": f"s{index}"}
        for index in range(1, 1000)
    ]
    run = baton.finished(baton.run_now(baton.create("/tasks", task("Long", *steps))["id"]), timeout=90)
    assert run["status"] == "succeeded", run["error"]
    assert run["output"]["s999"] == {"n": 0, "at": 999}
    page = baton.get(f"/runs/{run['id']}/steps?limit=200")
    assert ([step["position"] for step in page["items"]], page["has_more"]) == (list(range(200)), True)


@pytest.mark.timeout(60)
def test_an_output_of_a_mebibyte_is_read_where_the_run_says(baton: Baton) -> None:
    text = "y" * 150_000
    steps = [
        {"uses": "echo.test", "with": {"all": ["${params.text}"] * 6}, "save_as": "big"},
        {"uses": "echo.test", "with": {"first": "${steps.big.all[0]}"}, "save_as": "again"},
    ]
    created = baton.create("/tasks", task("Big", *steps, params={"text": text}))
    run = baton.finished(baton.run_now(created["id"]))
    assert (run["status"], run["output"]) == ("succeeded", None)
    answer = baton.call("GET", run["outputs_uri"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.content) == {"big": {"all": [text] * 6}, "again": {"first": text}}
    gone = baton.call("GET", "/files/" + "0" * 64)
    assert (gone.status_code, gone.json()["reason"]) == (404, "FILE_NOT_FOUND")
