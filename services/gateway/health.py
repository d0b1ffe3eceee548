"""Whether the gateway lives, whether everything it needs does, and how it all is."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from baton.api.v1 import health_service_pb2, health_service_pb2_grpc
from grpc.aio import AioRpcError, Channel
from grpc_health.v1 import health_pb2, health_pb2_grpc
from starlette.requests import Request
from starlette.responses import Response

from services.chassis import enums
from services.chassis.errors import Unavailable
from services.chassis.version import installed_version
from services.gateway.routes import Router, Values

_TIMEOUT_SECONDS = 1.0
# A service gives each of its looks two.
_SAID_TIMEOUT_SECONDS = 3.0
_HEALTHY = "healthy"
_STATUS_NAMES = enums.short_names(health_service_pb2.HealthStatus.DESCRIPTOR)
_JSON = "application/json"
PATHS = frozenset({"/health", "/health/live", "/health/ready", "/ready"})
"""Nobody who watches is ever turned away, however busy the gateway is."""


@dataclass(frozen=True)
class Check:
    """How one backend, or something that it has looked at, is."""

    name: str
    status: str
    """`healthy`, `degraded` or `unhealthy`."""
    message: str
    duration_ms: float
    details: dict[str, str] = field(default_factory=dict)


class Health:
    """The health of the backends behind `channels`, by name.

    Whether each serves is asked by the standard gRPC health check, and for the report what it says of itself.
    """

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        self._channels = channels
        self._began = time.monotonic()

    def add_routes(self, router: Router) -> None:
        """None of these needs a token: whoever watches a process has none."""
        router.add("GET", "/health", self._report)
        router.add("GET", "/health/live", self._live)
        router.add("GET", "/health/ready", self._ready)
        router.add("GET", "/ready", self._ready)

    async def _live(self, request: Request, values: Values) -> Response:
        return Response(b'{"status":"live"}', media_type=_JSON)

    async def _ready(self, request: Request, values: Values) -> Response:
        failing = [check for check in await self._checks() if check.status != _HEALTHY]
        if failing:
            reasons = "; ".join(f"{check.name}: {check.message}" for check in failing)
            raise Unavailable(f"not ready: {reasons}", reason="NOT_READY", retry_after=1)
        return Response(b'{"status":"ready"}', media_type=_JSON)

    async def _report(self, request: Request, values: Values) -> Response:
        serving, said = await asyncio.gather(self._checks(), self._said())
        status = _overall(serving, said)
        report = {
            "status": status,
            "checks": [asdict(check) for check in (*serving, *said)],
            "summary": f"{sum(check.status == _HEALTHY for check in serving)} of {len(serving)} services are healthy",
            "uptime_seconds": round(time.monotonic() - self._began, 3),
            "version": installed_version(),
        }
        return Response(orjson.dumps(report), 503 if status == "unhealthy" else 200, media_type=_JSON)

    async def _checks(self) -> list[Check]:
        return await asyncio.gather(*(_check(name, channel) for name, channel in self._channels.items()))

    async def _said(self) -> list[Check]:
        answers = await asyncio.gather(*(_said_by(name, channel) for name, channel in self._channels.items()))
        return [check for answer in answers for check in answer]


async def _check(name: str, channel: Channel) -> Check:
    began = time.perf_counter()
    message = await _ask(channel)
    duration_ms = round((time.perf_counter() - began) * 1000, 3)
    return Check(name, _HEALTHY if message == "serving" else "unhealthy", message, duration_ms)


async def _ask(channel: Channel) -> str:
    check: Callable[..., Any] = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]
    try:
        answer = await check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
    except AioRpcError:
        # Its text names addresses, and health is open to everybody.
        return "cannot be reached"
    return "serving" if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving"


async def _said_by(name: str, channel: Channel) -> list[Check]:
    """What a backend says of itself; nothing when it does not answer, or has no such method."""
    try:
        stub = health_service_pb2_grpc.HealthServiceStub(channel)
        answer = await stub.CheckHealth(health_service_pb2.CheckHealthRequest(), timeout=_SAID_TIMEOUT_SECONDS)
    except AioRpcError:
        return []
    return [
        Check(
            f"{name}/{check.name}",
            _STATUS_NAMES.get(check.status, "unhealthy"),
            check.message,
            check.duration_ms,
            dict(sorted(check.details.items())),
        )
        for check in answer.checks
    ]


def _overall(serving: Sequence[Check], said: Sequence[Check]) -> str:
    if not any(check.status == _HEALTHY for check in serving):
        return "unhealthy"
    return _HEALTHY if all(check.status == _HEALTHY for check in (*serving, *said)) else "degraded"
