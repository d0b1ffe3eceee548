"""Whether the gateway lives, whether everything it needs does, and how it all is."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson
from grpc.aio import AioRpcError, Channel
from grpc_health.v1 import health_pb2, health_pb2_grpc
from starlette.requests import Request
from starlette.responses import Response

from services.chassis.errors import Unavailable
from services.gateway.routes import Router, Values

_TIMEOUT_SECONDS = 1.0
_JSON = "application/json"
PATHS = frozenset({"/health", "/health/live", "/health/ready", "/ready"})
"""Nobody who watches is ever turned away, however busy the gateway is."""


@dataclass(frozen=True)
class Check:
    """How one backend is."""

    name: str
    status: str
    """`healthy` or `unhealthy`."""
    message: str
    duration_ms: float
    details: dict[str, str] = field(default_factory=dict)


class Health:
    """The health of the backends behind `channels`, by name, each asked by the standard gRPC health check."""

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
        failing = [check for check in await self._checks() if check.status != "healthy"]
        if failing:
            reasons = "; ".join(f"{check.name}: {check.message}" for check in failing)
            raise Unavailable(f"not ready: {reasons}", reason="NOT_READY", retry_after=1)
        return Response(b'{"status":"ready"}', media_type=_JSON)

    async def _report(self, request: Request, values: Values) -> Response:
        checks = await self._checks()
        status = _overall(checks)
        report = {
            "status": status,
            "checks": [asdict(check) for check in checks],
            "summary": f"{sum(check.status == 'healthy' for check in checks)} of {len(checks)} services are healthy",
            "uptime_seconds": round(time.monotonic() - self._began, 3),
            "version": gateway_version(),
        }
        return Response(orjson.dumps(report), 503 if status == "unhealthy" else 200, media_type=_JSON)

    async def _checks(self) -> list[Check]:
        return await asyncio.gather(*(_check(name, channel) for name, channel in self._channels.items()))


async def _check(name: str, channel: Channel) -> Check:
    began = time.perf_counter()
    message = await _ask(channel)
    duration_ms = round((time.perf_counter() - began) * 1000, 3)
    return Check(name, "healthy" if message == "serving" else "unhealthy", message, duration_ms)


async def _ask(channel: Channel) -> str:
    check: Callable[..., Any] = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]
    try:
        answer = await check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
    except AioRpcError:
        # Its text names addresses, and health is open to everybody.
        return "cannot be reached"
    return "serving" if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving"


def _overall(checks: Sequence[Check]) -> str:
    healthy = sum(check.status == "healthy" for check in checks)
    if healthy == len(checks):
        return "healthy"
    return "degraded" if healthy else "unhealthy"


def gateway_version() -> str:
    """The installed version, or `unknown` in a checkout that was never installed."""
    try:
        return version("baton")
    except PackageNotFoundError:
        return "unknown"
