"""How the gateway says how it is."""

import httpx2
import pytest

from tests.unit.gateway.garden import PACKAGE, Garden

NOBODY = {"Authorization": ""}


async def test_it_lives_whatever_its_backends_do(client: httpx2.AsyncClient, garden: Garden) -> None:
    await garden.server.stop(None)
    assert (await client.get("/health/live", headers=NOBODY)).status_code == 200


@pytest.mark.parametrize("path", ["/health/ready", "/ready"])
async def test_it_is_ready_when_its_backends_serve(client: httpx2.AsyncClient, garden: Garden, path: str) -> None:
    answer = await client.get(path, headers=NOBODY)
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
    await garden.set_serving(False)
    answer = await client.get(path, headers=NOBODY)
    assert (answer.status_code, answer.json()["detail"]) == (503, f"not ready: {PACKAGE}: not serving")
    await garden.server.stop(None)
    answer = await client.get(path, headers=NOBODY)
    assert (answer.status_code, answer.json()["detail"]) == (503, f"not ready: {PACKAGE}: cannot be reached")


async def test_the_report_has_a_line_for_each_backend(client: httpx2.AsyncClient, garden: Garden) -> None:
    answer = await client.get("/health", headers=NOBODY)
    report = answer.json()
    assert (answer.status_code, report["status"], report["summary"]) == (200, "healthy", "1 of 1 services are healthy")
    (check,) = report["checks"]
    assert (check["name"], check["status"], check["message"]) == (PACKAGE, "healthy", "serving")
    assert check.keys() == {"name", "status", "message", "duration_ms", "details"}
    assert report.keys() == {"status", "checks", "summary", "uptime_seconds", "version"}
    await garden.set_serving(False)
    answer = await client.get("/health", headers=NOBODY)
    assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
