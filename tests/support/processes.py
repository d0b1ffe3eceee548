"""Baton's processes, started as a user would start them."""

import itertools
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.chassis.channel import open_channel
from services.chassis.errors import Unavailable
from tests.support.waiting import await_until

_LOWEST_PORT, _PORTS_EACH, _PARTS = 10_000, 1_000, 22
_part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
_first = _LOWEST_PORT + _part * _PORTS_EACH
# Not from the first one: another test run on this machine may have begun there.
_start = random.randrange(_PORTS_EACH)
_ports = (_first + (_start + count) % _PORTS_EACH for count in itertools.count())


def free_port() -> int:
    """A port that nobody listens on, and that nobody else is told of before somebody does.

    Below those that the system gives out itself, and each process of a test run counts on in a part of its own.
    """
    while True:
        port = next(_ports)
        with suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            return port


class Process:
    """A running service and the address it was told to serve on."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process = process
        self.address = address

    async def health(self) -> str:
        """`SERVING`, `NOT_SERVING`, or an empty string while nobody answers."""
        async with open_channel(self.address, default_timeout=1) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # whose type knows of no methods
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest())
            except Unavailable:
                return ""
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    async def await_health(self, status: str, timeout: float = 20) -> None:
        """Waits until the health service answers `status`."""

        async def has_status() -> bool:
            assert self._process.poll() is None, "the process has ended"
            return await self.health() == status

        await await_until(has_status, timeout=timeout)

    def stop(self) -> int:
        """Sends SIGTERM and answers the exit code."""
        self._process.terminate()
        return self._process.wait(15)


@contextmanager
def running(module: str, environment: dict[str, str]) -> Iterator[Process]:
    """`python -m module` on a port from the OS, killed at the end if it still runs."""
    address = f"127.0.0.1:{free_port()}"
    variables = {"PYTHONPATH": os.pathsep.join(sys.path), "BATON_LISTEN": address, **environment}
    with subprocess.Popen([sys.executable, "-m", module], env={**os.environ, **variables}, text=True) as process:
        try:
            yield Process(process, address)
        finally:
            process.kill()
