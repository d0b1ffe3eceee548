"""How a service says how it is."""

import asyncio
from typing import Any

import pytest
from baton.api.v1 import health_service_pb2 as pb

from services.chassis import health, loops
from services.chassis.health import DEGRADED, Finding, HealthServicer, look_at_loop, look_at_loops

NOBODY: Any = None


async def asked(servicer: HealthServicer) -> dict[str, pb.HealthCheck]:
    answer = await servicer.CheckHealth(pb.CheckHealthRequest(), NOBODY)
    assert answer.version
    return {check.name: check for check in answer.checks}


async def test_what_looks_find_is_told() -> None:
    async def look() -> Finding:
        return Finding("somewhat slow", DEGRADED, {"seconds": "3.5"})

    check = (await asked(HealthServicer({"printer": look})))["printer"]
    assert (check.status, check.message, dict(check.details)) == (
        pb.HEALTH_STATUS_DEGRADED,
        "somewhat slow",
        {"seconds": "3.5"},
    )


async def test_a_look_that_fails_or_hangs_says_nothing_of_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_TIMEOUT_SECONDS", 0.05)

    async def fails() -> Finding:
        raise OSError("password=secret at 10.0.0.1")

    async def hangs() -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    checks = await asked(HealthServicer({"one": fails, "other": hangs}))
    assert {(check.status, check.message) for check in checks.values()} == {
        (pb.HEALTH_STATUS_UNHEALTHY, "does not answer")
    }


async def test_however_many_ask_it_looks_once_a_second() -> None:
    looked = []

    async def look() -> Finding:
        looked.append(1)
        await asyncio.sleep(0)
        return Finding("fine")

    servicer = HealthServicer({"printer": look})
    leaving = asyncio.create_task(asked(servicer))
    await asyncio.sleep(0)
    staying = [asyncio.create_task(asked(servicer)) for _ in range(20)]
    leaving.cancel()
    answers = await asyncio.gather(*staying)
    assert len(answers) == 20
    assert looked == [1]


async def test_a_loop_that_stands_still_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    pulse = loops.Pulse(at=-40.0, until=1e12)
    monkeypatch.setattr(loops, "_pulses", {"printing": pulse})
    assert (await look_at_loops()).message == "1 go round"
    pulse.until = -1.0
    found = await look_at_loops()
    assert (found.status, found.message) == (DEGRADED, "behind: printing")
    assert (await look_at_loop("printing")()).status == DEGRADED
    assert (await look_at_loop("cleaning")()).message == "has not begun"
