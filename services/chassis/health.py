"""HealthService: how a service is, in its own words."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from baton.api.v1 import health_service_pb2 as pb
from baton.api.v1 import health_service_pb2_grpc as rpc
from grpc.aio import ServicerContext

from services.chassis import call, loops
from services.chassis.database import Database
from services.chassis.version import installed_version

_ASK_AGAIN_AFTER_SECONDS = 1.0
_TIMEOUT_SECONDS = 2.0
HEALTHY, DEGRADED, UNHEALTHY = pb.HEALTH_STATUS_HEALTHY, pb.HEALTH_STATUS_DEGRADED, pb.HEALTH_STATUS_UNHEALTHY


@dataclass(frozen=True)
class Finding:
    """What a look at something has shown. It is told to everybody: no names, no addresses, no texts of errors."""

    message: str
    status: pb.HealthStatus.ValueType = HEALTHY
    details: Mapping[str, str] = field(default_factory=dict)


Look = Callable[[], Awaitable[Finding]]


class HealthServicer(rpc.HealthServiceServicer):
    """Takes all looks at one time, at most once a second; everybody who asks meanwhile is told the same."""

    def __init__(self, looks: Mapping[str, Look]) -> None:
        self._looks = looks
        self._answer: asyncio.Task[pb.CheckHealthResponse] | None = None
        self._asked_at = 0.0

    async def CheckHealth(
        self, request: pb.CheckHealthRequest, context: ServicerContext[Any, Any]
    ) -> pb.CheckHealthResponse:
        if self._answer is None or time.monotonic() - self._asked_at >= _ASK_AGAIN_AFTER_SECONDS:
            self._asked_at = time.monotonic()
            self._answer = asyncio.create_task(self._look())
        # The first of those who wait may leave without failing the others.
        return await asyncio.shield(self._answer)

    async def _look(self) -> pb.CheckHealthResponse:
        call.current.set(None)
        checks = await asyncio.gather(*(_check(name, look) for name, look in self._looks.items()))
        return pb.CheckHealthResponse(checks=checks, version=installed_version())


def add_health(server: grpc.aio.Server, database: Database, looks: Mapping[str, Look] | None = None) -> None:
    """Serves HealthService: of the database, of the background loops, and of what else `looks` are for."""

    async def look_at_database() -> Finding:
        await database.ping()
        return Finding("answers")

    servicer = HealthServicer({"database": look_at_database, **(looks or {}), "loops": look_at_loops})
    rpc.add_HealthServiceServicer_to_server(servicer, server)


async def look_at_loops() -> Finding:
    """All background loops of this process."""
    pulses = loops.pulses()
    late = sorted(name for name, pulse in pulses.items() if pulse.is_late)
    details = {f"{name}_age_seconds": f"{pulse.age:.1f}" for name, pulse in sorted(pulses.items())}
    if late:
        return Finding(f"behind: {', '.join(late)}", DEGRADED, details)
    return Finding(f"{len(pulses)} go round", details=details)


def look_at_loop(name: str) -> Look:
    """A look at one background loop."""

    async def look() -> Finding:
        pulse = loops.pulses().get(name)
        if pulse is None:
            return Finding("has not begun", DEGRADED)
        message = f"last got through {pulse.age:.1f} s ago"
        return Finding(message, DEGRADED if pulse.is_late else HEALTHY, {"age_seconds": f"{pulse.age:.1f}"})

    return look


async def _check(name: str, look: Look) -> pb.HealthCheck:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            finding = await look()
    except Exception:
        # Why is in the log of whoever failed; here it might name what is nobody's business.
        finding = Finding("does not answer", UNHEALTHY)
    return pb.HealthCheck(
        name=name,
        status=finding.status,
        message=finding.message,
        duration_ms=round((time.perf_counter() - began) * 1000, 3),
        details=finding.details,
    )
