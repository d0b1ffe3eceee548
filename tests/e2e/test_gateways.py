"""Several gateways share one port. They keep no tables, so one engine is enough."""

import re

import requests

from tests.e2e.conftest import StartBaton
from tests.support.baton import Baton
from tests.support.waiting import wait_until

NAMES = ("gateway", "gateway-2", "gateway-3")


def test_gateways_share_the_work_and_one_that_is_killed_is_not_missed(start_baton: StartBaton) -> None:
    baton = start_baton(BATON_GATEWAY_WORKERS="3")
    wait_until(lambda: all(_has_answered(baton, name) for name in NAMES))
    all_of_them = {f"baton-{name}" for name in (*NAMES, "tasks", "sessions", "workflows", "worker")}
    # Whichever gateway is asked, it shows all of them; one that has much to do may tell it too late for the page.
    for _ in range(3):
        wait_until(lambda: _up(baton) >= all_of_them)
    killed = baton.kill("gateway-2")
    assert {baton.call("GET", "/tasks").status_code for _ in range(10)} == {200}
    assert baton.children()["gateway-2"] != killed
    assert any("gateway-2 was ended by SIGKILL; it is restarted" in line for line in baton.output)


def _has_answered(baton: Baton, name: str) -> bool:
    """Whether a gateway has had one of the requests, each of which comes over a connection of its own."""
    assert requests.get(f"{baton.url}/health/live", timeout=5).ok
    return '"event":"request"' in baton.log(name).replace(" ", "")


def _up(baton: Baton) -> set[str]:
    page = baton.call("GET", "/metrics").text
    return set(re.findall(r'baton_metrics_source_up\{service_name="([^"]+)"\} 1', page))
