"""A gRPC server, and the life of the process around it."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from services.chassis.auth import Verifier
from services.chassis.channel import MAX_MESSAGE_BYTES
from services.chassis.concerns import Concerns
from services.chassis.config import ConfigurationError
from services.chassis.policy import Policies

_log = logging.getLogger(__name__)
_READY_TIMEOUT_SECONDS = 4.0


def create_server(policies: Policies, verifier: Verifier) -> grpc.aio.Server:
    """A server whose methods are guarded as `policies` say; methods that are not in there are refused."""
    return grpc.aio.server(
        interceptors=[Concerns(policies, verifier)],
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            # Somebody who vanished in the middle of a stream is noticed after 40 s.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
        ],
    )


async def serve(
    server: grpc.aio.Server,
    address: str,
    *,
    ready: Callable[[], Awaitable[None]],
    background: Sequence[Coroutine[None, None, None]] = (),
    before_stop: Callable[[], None] = lambda: None,
    grace_seconds: float = 10.0,
) -> None:
    """Serves on `address` until SIGTERM or SIGINT, then finishes calls in progress for `grace_seconds`.

    `ready` is tried every second; while it raises, the standard health service answers NOT_SERVING and all else
    goes on. The `background` loops run as long as the server does. `before_stop` is called when the process is to
    stop: calls that only wait can be ended there. Raises ConfigurationError when the address cannot be had.
    """
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    await health_servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        for loop in background:
            loop.close()
        raise ConfigurationError(f"cannot listen on {address}: it is in use, or not of this machine") from None
    await server.start()
    _log.info("serving", extra={"address": address})
    tasks = [asyncio.create_task(loop) for loop in (*background, _watch_readiness(health_servicer, ready))]
    await stop_signal()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await health_servicer.enter_graceful_shutdown()
    before_stop()
    await server.stop(grace_seconds)
    _log.info("stopped")


async def stop_signal() -> None:
    """Waits for SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


async def _watch_readiness(servicer: health.HealthServicer, ready: Callable[[], Awaitable[None]]) -> None:
    before: str | None = None
    while True:
        obstacle = await _obstacle(ready)
        if obstacle != before:
            _log.info("readiness_changed", extra={"obstacle": obstacle})
            status = health_pb2.HealthCheckResponse
            await servicer.set("", status.NOT_SERVING if obstacle else status.SERVING)
        before = obstacle
        await asyncio.sleep(1)


async def _obstacle(ready: Callable[[], Awaitable[None]]) -> str:
    """Why the process is not ready; empty when it is."""
    try:
        async with asyncio.timeout(_READY_TIMEOUT_SECONDS):
            await ready()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
