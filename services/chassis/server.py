"""A gRPC server, and the life of the process around it."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from services.chassis import loops
from services.chassis.auth import Verifier
from services.chassis.channel import MAX_MESSAGE_BYTES
from services.chassis.concerns import Concerns
from services.chassis.policy import Policies

_log = logging.getLogger(__name__)


def create_server(policies: Policies, verifier: Verifier) -> grpc.aio.Server:
    """A server whose methods are guarded as `policies` say; methods that are not in there are refused."""
    return grpc.aio.server(
        interceptors=[Concerns(policies, verifier)],
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ],
    )


async def serve(
    server: grpc.aio.Server,
    address: str,
    *,
    ready: Callable[[], Awaitable[None]],
    background: Sequence[Coroutine[None, None, None]] = (),
    grace_seconds: float = 10.0,
) -> None:
    """Serves on `address` until SIGTERM or SIGINT, then finishes calls in progress for `grace_seconds`.

    `ready` is tried every second; while it raises, the standard health service answers NOT_SERVING and all else
    goes on. The `background` loops run as long as the server does.
    """
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    await health_servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    server.add_insecure_port(address)
    await server.start()
    _log.info("serving", extra={"address": address})
    tasks = [asyncio.create_task(loop) for loop in (*background, _watch_readiness(health_servicer, ready))]
    await stop_signal()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
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
    async def probe() -> float:
        try:
            async with asyncio.timeout(4):
                await ready()
        except BaseException:
            await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
            raise
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        return 1.0

    await loops.forever("readiness", probe, timeout=5)
