"""The backends behind the gateway in its tests, real gRPC servers on loopback: a greenhouse with a pond, and a ticket
office."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import baton
import grpc
import grpc_tools  # type: ignore[import-untyped]
from baton.api.v1 import auth_service_pb2, auth_service_pb2_grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import Int64Value
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from services.chassis.auth import TokenExchange
from services.chassis.channel import open_channel
from services.chassis.errors import Internal, NotFound, ServiceError, Unauthenticated
from services.chassis.status import DETAILS_KEY, grpc_code, to_status
from services.gateway.app import build_app
from services.gateway.backends import close_channels, open_channels
from services.gateway.config import Settings
from services.gateway.documentation import comments
from services.gateway.edge import Edge

PACKAGE = "greenhouse.v1"
TOKEN, ACCESS_TOKEN = "baton_key_secret_crc", "head.claims.signature"
OWN_JWT = "own.claims.signature"
PROTO = Path(__file__).parent / "greenhouse_service.proto"


class Contract:
    """The compiled contract of the greenhouse."""

    def __init__(self, messages: ModuleType, stubs: ModuleType, comments: dict[str, str]) -> None:
        self.messages = messages
        self.stubs = stubs
        self.comments = comments

    def plant(self, **fields: Any) -> Any:
        return self.messages.Plant(**fields)


def compile_contract(directory: Path) -> Contract:
    """Compiles the proto into `directory`, against the contracts that Baton itself was built from."""
    target = directory / "greenhouse" / "v1"
    target.mkdir(parents=True)
    source = target / PROTO.name
    source.write_text(PROTO.read_text())
    built = directory / "built"
    built.mkdir()
    arguments = [
        f"--descriptor_set_in={Path(next(iter(baton.__path__))) / 'descriptors.binpb'}",
        f"-I{directory}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        f"--python_out={built}",
        f"--grpc_python_out={built}",
        f"--descriptor_set_out={built / 'set.binpb'}",
        "--include_source_info",
        str(source),
    ]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True)
    sys.path.insert(0, str(built))
    name = f"{PACKAGE}.{source.stem}"
    text = comments((built / "set.binpb").read_bytes())
    return Contract(import_module(f"{name}_pb2"), import_module(f"{name}_pb2_grpc"), text)


@dataclass
class Greenhouse:
    """Keeps plants; answers as its requests ask, and remembers what it was sent along with them."""

    contract: Contract
    plants: dict[str, Any] = field(default_factory=dict)
    by_key: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)
    seconds_left: float | None = None
    """How long the last call might take."""
    fails_with: Exception | None = None
    export_ended: asyncio.Event = field(default_factory=asyncio.Event)
    watched: int = 0
    """How many bytes of events were taken."""
    watch_ended: asyncio.Event = field(default_factory=asyncio.Event)
    watch_fails: asyncio.Event = field(default_factory=asyncio.Event)
    hold: asyncio.Event | None = None
    """While set up and not set off, every call waits for it."""
    given_up: asyncio.Event = field(default_factory=asyncio.Event)
    """A call that waited was cancelled."""

    def __getattr__(self, name: str) -> Any:
        """Methods that no test calls."""
        if name[0].isupper():
            return None
        raise AttributeError(name)

    async def GetPlant(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        if request.plant_id not in self.plants:
            await _fail(context, NotFound(f"plant {request.plant_id} not found", reason="PLANT_NOT_FOUND"))
        return self.contract.messages.GetPlantResponse(plant=self.plants[request.plant_id])

    async def GetFavourite(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        return self.contract.messages.GetPlantResponse()

    async def ListPlants(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        return self.contract.messages.ListPlantsResponse(items=self.plants.values())

    async def CreatePlant(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        if request.request_id in self.by_key:
            context.set_trailing_metadata((("idempotent-replayed", "true"),))
            return self.by_key[request.request_id]
        plant = self.contract.plant(id=f"plant-{len(self.plants)}", name=request.name, state=request.state)
        plant.notes.CopyFrom(request.notes)
        self.plants[plant.id] = plant
        response = self.contract.messages.CreatePlantResponse(plant=plant)
        if request.request_id:
            self.by_key[request.request_id] = response
        return response

    async def UpdatePlant(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        changed = request.update_mask.paths
        return self.contract.messages.UpdatePlantResponse(plant=request.plant, dry_run=request.dry_run, changed=changed)

    async def WaterPlant(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        return self.contract.messages.WaterPlantResponse(plant_id=request.plant_id, amount=request.amount)

    async def UpdateBed(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        label = request.label if request.HasField("label") else None
        return self.contract.messages.UpdateBedResponse(changed=request.update_mask.paths, label=label)

    async def RepotPlant(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        version = request.version + 1 if request.HasField("version") else 100
        return self.contract.messages.RepotPlantResponse(pot={"version": version})

    async def HarvestPlant(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        return self.contract.messages.HarvestPlantResponse(plant_id=request.plant_id, note=request.note)

    async def ExportPlants(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            await self._receive(request, context)
            yield HttpBody(content_type="text/csv; charset=utf-8", data=b"id,name\n")
            for number in range(1_000_000 if request.endless else request.rows):
                if request.fail_after and number == request.fail_after:
                    await _fail(context, Internal("the shelf broke"))
                yield HttpBody(data=b"%d,basil\n" % number * (4096 if request.endless else 1))
        finally:
            self.export_ended.set()

    async def WatchPlants(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """A first event, those that are asked for, and then nothing until it is told to fail."""
        try:
            await self._receive(request, context)
            yield self.contract.messages.WatchPlantsResponse(number=request.after)
            for number in range(request.events):
                text = "g" * request.size or "grows\n"
                yield self.contract.messages.WatchPlantsResponse(number=request.after + number + 1, text=text)
                self.watched += len(text)
            if request.ends:
                return
            await self.watch_fails.wait()
            await _fail(context, NotFound("the plants are gone", reason="PLANTS_GONE"))
        finally:
            self.watch_ended.set()

    async def FindSpot(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        return self.contract.messages.FindSpotResponse(house=request.house, spot=request.spot, name=request.name)

    async def LabelPlant(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        return self.contract.messages.LabelPlantResponse(labels=request.labels)

    async def TagPlant(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        return self.contract.messages.TagPlantResponse(tags=request.tags)

    async def CallPlant(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        nickname = request.nickname if request.HasField("nickname") else None
        return self.contract.messages.CallPlantResponse(nickname=nickname)

    async def CountPlants(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        return Int64Value(value=len(self.plants))

    async def Sweep(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        return Empty()

    async def Enter(self, request: Any, context: Any) -> Any:
        await self._receive(request, context)
        return self.contract.messages.EnterResponse(welcome=request.ticket == "valid")

    async def _receive(self, request: Any, context: Any) -> None:
        self.metadata = dict(context.invocation_metadata())
        self.seconds_left = context.time_remaining()
        self.requests.append(request)
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.given_up.set()
                raise
        if isinstance(self.fails_with, ServiceError):
            await _fail(context, self.fails_with)
        elif self.fails_with is not None:
            raise self.fails_with


@dataclass
class Pond:
    """Keeps frogs."""

    contract: Contract
    frogs: dict[str, Any] = field(default_factory=dict)

    async def GetFrog(self, request: Any, context: Any) -> Any:
        return self.contract.messages.GetFrogResponse(frog=self.frogs[request.name])

    async def AdoptFrog(self, request: Any, context: Any) -> Any:
        frog = self.frogs[request.name] = self.contract.messages.Frog(name=request.name, jumps=len(self.frogs))
        return self.contract.messages.AdoptFrogResponse(frog=frog)

    async def ExportFrogs(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield HttpBody(content_type="text/csv; charset=utf-8", data=b"name,jumps\r\n")
        for frog in self.frogs.values():
            yield HttpBody(data=f"{frog.name},{frog.jumps}\r\n".encode())

    async def ExportFrogsAsNdjson(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield HttpBody(content_type="application/x-ndjson; charset=utf-8")
        for frog in self.frogs.values():
            yield HttpBody(data=b'{"name":"%s"}\n' % frog.name.encode())

    async def WatchFrogs(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield self.contract.messages.WatchFrogsResponse(number=request.after)
        for number, frog in enumerate(list(self.frogs.values())[request.after :], start=request.after + 1):
            yield self.contract.messages.WatchFrogsResponse(number=number, frog=frog)


class TicketOffice(auth_service_pb2_grpc.AuthServiceServicer):
    """Exchanges the one good token."""

    access_token: str = ACCESS_TOKEN
    """What for."""
    fails_with: ServiceError | None = None

    async def ExchangeToken(self, request: Any, context: Any) -> Any:
        if self.fails_with is not None:
            await _fail(context, self.fails_with)
        if request.token != TOKEN:
            await _fail(context, Unauthenticated("the token is not valid", reason="TOKEN_INVALID"))
        return auth_service_pb2.ExchangeTokenResponse(access_token=self.access_token)


async def _fail(context: Any, error: ServiceError) -> None:
    details = to_status(error).SerializeToString()
    await context.abort(grpc_code(error.code), error.message, ((DETAILS_KEY, details),))


@dataclass
class Garden:
    """A gateway in front of a greenhouse."""

    greenhouse: Greenhouse
    office: TicketOffice
    health: health.HealthServicer
    server: grpc.aio.Server
    address: str
    app: Edge

    async def set_serving(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        await self.health.set("", status.SERVING if serving else status.NOT_SERVING)


async def start_backend(
    greenhouse: Greenhouse, office: TicketOffice | None = None, address: str = "127.0.0.1:0"
) -> tuple[grpc.aio.Server, Any, str]:
    """Serves all backends; the last value is the address."""
    server = grpc.aio.server()
    checker = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    await checker.set("", health_pb2.HealthCheckResponse.SERVING)
    greenhouse.contract.stubs.add_GreenhouseServiceServicer_to_server(greenhouse, server)
    greenhouse.contract.stubs.add_FrogServiceServicer_to_server(Pond(greenhouse.contract), server)
    auth_service_pb2_grpc.add_AuthServiceServicer_to_server(office or TicketOffice(), server)
    port = server.add_insecure_port(address)
    await server.start()
    return server, checker, f"127.0.0.1:{port}"


@asynccontextmanager
async def open_garden(contract: Contract, **more: Any) -> AsyncIterator[Garden]:
    """A gateway, with these settings, and its backends; everything is closed at the end."""
    greenhouse, office = Greenhouse(contract), TicketOffice()
    server, checker, address = await start_backend(greenhouse, office)
    settings = Settings(backends=f"{PACKAGE}={address}", auth_address=address, **{"timeout_seconds": 5.0, **more})
    channels, auth = open_channels(settings.addresses()), open_channel(address)
    try:
        app = build_app(settings, channels, TokenExchange(auth), contract.comments)
        yield Garden(greenhouse, office, checker, server, address, app)
        await app.close()
    finally:
        await close_channels([*channels.values(), auth])
        await server.stop(None)
