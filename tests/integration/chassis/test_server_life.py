"""The life of a serving process."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.chassis.auth import Verifier
from services.chassis.clock import SystemClock
from services.chassis.config import ConfigurationError
from services.chassis.errors import Unavailable
from services.chassis.policy import policies
from services.chassis.server import create_server, serve
from tests.integration.chassis.newsstand import KIOSK, Servicer, messages
from tests.support.grpc import channel_of
from tests.support.waiting import await_until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def _free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@dataclass
class Process:
    """What a process's `__main__` runs."""

    servicer: Servicer
    address: str
    running: asyncio.Task[None]
    channel: Any
    obstacle: Exception | None = None

    @property
    def kiosk(self) -> Any:
        return KIOSK.stubs.KioskServiceStub(self.channel)

    async def ready(self) -> None:
        if self.obstacle is not None:
            raise self.obstacle

    async def health(self) -> Any:
        try:
            answer = await health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest())
        except Unavailable:
            return None
        return answer.status

    async def is_serving(self) -> bool:
        return await self.health() == SERVING

    async def is_not_serving(self) -> bool:
        return await self.health() == NOT_SERVING

    def stop(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@asynccontextmanager
async def _process(
    tmp_path: Path, *background: Coroutine[None, None, None], obstacle: Exception | None = None, grace: float = 5
) -> AsyncIterator[Process]:
    address, servicer = _free_address(), Servicer()
    server = create_server(policies([KIOSK.descriptor]), Verifier(tmp_path / "jwks.json", SystemClock()))
    KIOSK.stubs.add_KioskServiceServicer_to_server(servicer, server)
    async with channel_of(address) as channel:
        process = Process(servicer, address, None, channel, obstacle)  # type: ignore[arg-type]
        process.running = asyncio.create_task(
            serve(server, address, ready=process.ready, background=background, grace_seconds=grace)
        )
        try:
            yield process
        finally:
            if not process.running.done():
                process.stop()
            await asyncio.wait_for(process.running, 10)


async def test_health_is_open_and_says_whether_the_process_is_ready(tmp_path: Path) -> None:
    async with _process(tmp_path, obstacle=Unavailable("no database")) as process:
        await await_until(process.is_not_serving)
        assert (await process.kiosk.Redeem(messages.LookRequest())).text == "nothing"  # all else goes on
        process.obstacle = None
        await await_until(process.is_serving)
        process.obstacle = Unavailable("no database")
        await await_until(process.is_not_serving)


async def test_a_change_of_readiness_is_logged_once_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with _process(tmp_path, obstacle=Unavailable("no database")) as process:
        await await_until(process.is_not_serving)
        process.obstacle = None
        await await_until(process.is_serving)
    told = [vars(record)["obstacle"] for record in caplog.records if record.message == "readiness_changed"]
    assert told == ["Unavailable: no database", ""]


async def test_calls_in_progress_are_finished_before_the_process_stops(tmp_path: Path) -> None:
    finish = asyncio.Event()

    async def slow(request: Any) -> Any:
        await finish.wait()
        return messages.LookResponse(text="done")

    async with _process(tmp_path) as process:
        await await_until(process.is_serving)
        process.servicer.answer = slow
        calling = asyncio.ensure_future(process.kiosk.Redeem(messages.LookRequest()))
        await await_until(lambda: process.servicer.requests)
        process.stop()
        async with channel_of(process.address) as newcomer:
            # New callers are sent away while the old one is served.
            await await_until(lambda: _refuses(newcomer))
        assert not process.running.done()
        finish.set()
        assert (await calling).text == "done"
        await asyncio.wait_for(process.running, 5)


async def _refuses(channel: Any) -> bool:
    try:
        await KIOSK.stubs.KioskServiceStub(channel).Look(messages.LookRequest())
    except Unavailable:
        return True
    except Exception:
        return False
    return False


async def test_grace_has_an_end(tmp_path: Path) -> None:
    async with _process(tmp_path, grace=0.2) as process:
        await await_until(process.is_serving)
        process.servicer.hangs()
        calling = asyncio.ensure_future(process.kiosk.Redeem(messages.LookRequest()))
        await await_until(lambda: process.servicer.requests)
        process.stop()
        await asyncio.wait_for(process.running, 5)
        with pytest.raises(Unavailable):
            await calling


async def test_watchers_of_health_learn_that_the_process_stops(tmp_path: Path) -> None:
    async with _process(tmp_path, grace=0.2) as process:
        await await_until(process.is_serving)
        watching = aiter(health_pb2_grpc.HealthStub(process.channel).Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(watching)).status == SERVING
        process.stop()
        assert (await anext(watching)).status == NOT_SERVING


async def test_background_loops_run_as_long_as_the_process(tmp_path: Path) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def loop() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with _process(tmp_path, loop()) as process:
        await asyncio.wait_for(began.wait(), 5)
        await await_until(process.is_serving)
        assert not ended.is_set()
    assert ended.is_set()


async def test_an_address_in_use_is_told_as_such(tmp_path: Path) -> None:
    async def loop() -> None:
        raise AssertionError("must not run")

    async def ready() -> None:
        raise AssertionError("must not run")

    first = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    address = f"127.0.0.1:{first.add_insecure_port('127.0.0.1:0')}"
    server = create_server({}, Verifier(tmp_path / "jwks.json", SystemClock()))
    with pytest.raises(ConfigurationError, match=f"cannot listen on {address}"):
        await serve(server, address, ready=ready, background=[loop()])
    await first.stop(None)
