"""A served kiosk whose answers a test decides."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc

from services.chassis.auth import Verifier
from services.chassis.clock import SystemClock
from services.chassis.policy import Policies, policies
from services.chassis.server import create_server
from tests.support.grpc import Signer, channel_of, serve_in_process
from tests.unit.chassis.kiosk import Contract, contract

KIOSK: Contract = contract("kiosk")
messages: ModuleType = KIOSK.messages
BUY, LOOK, PRINT = (f"/kiosk.v1.KioskService/{name}" for name in ("Buy", "Look", "Print"))
Answer = Callable[[Any], Awaitable[Any]]


async def _nothing(request: Any) -> Any:
    return messages.LookResponse(text="nothing")


class Servicer(KIOSK.stubs.KioskServiceServicer):  # type: ignore[misc, name-defined]
    """Answers what it is told to, and keeps the requests that reached it."""

    def __init__(self) -> None:
        self.answer: Answer = _nothing
        self.pages: Callable[[], AsyncIterator[Any]] | None = None
        self.requests: list[Any] = []

    async def Buy(self, request: Any, context: Any) -> Any:
        return await self._answered(request)

    async def Look(self, request: Any, context: Any) -> Any:
        return await self._answered(request)

    Return, Ask, Redeem = Buy, Look, Look

    async def Print(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        assert self.pages is not None
        async for page in self.pages():
            yield page

    async def _answered(self, request: Any) -> Any:
        self.requests.append(request)
        return await self.answer(request)

    def fails_with(self, error: BaseException) -> None:
        async def fail(request: Any) -> Any:
            raise error

        self.answer = fail

    def hangs(self) -> asyncio.Event:
        """The next calls never end by themselves; the event says that one was cancelled."""
        cancelled = asyncio.Event()

        async def hang(request: Any) -> Any:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        self.answer = hang
        return cancelled


@dataclass
class Newsstand:
    """A running server and those who call it."""

    servicer: Servicer
    server: grpc.aio.Server
    address: str
    signer: Signer
    channels: list[Any] = field(default_factory=list)

    def channel(self, token: str | None = None) -> Any:
        channel = channel_of(self.address, token)
        self.channels.append(channel)
        return channel

    def stub(self, token: str | None = None) -> Any:
        """Calls with `token` as it is, or with none."""
        return KIOSK.stubs.KioskServiceStub(self.channel(token))

    def caller(self, scopes: Iterable[str] = ("kiosk:read", "kiosk:write"), agent_id: str | None = None) -> Any:
        """Somebody who holds `scopes`."""
        return self.stub(self.signer.token(scopes, agent_id=agent_id))


@asynccontextmanager
async def open_newsstand(jwks_file: Path, declared: Policies | None = None) -> AsyncIterator[Newsstand]:
    """Serves the kiosk, guarded as its contract says or as `declared`."""
    signer = Signer.trusted_through(jwks_file)
    server = create_server(
        policies([KIOSK.descriptor]) if declared is None else declared, Verifier(jwks_file, SystemClock())
    )
    servicer = Servicer()
    KIOSK.stubs.add_KioskServiceServicer_to_server(servicer, server)
    async with serve_in_process(server) as address:
        opened = Newsstand(servicer, server, address, signer)
        try:
            yield opened
        finally:
            for channel in opened.channels:
                await channel.close()
