"""What a request costs the gateway: by itself, and beside a bare Starlette route that calls the same stub.

First all that it does above the HTTP server and the gRPC client, in this process: the token, the limits, the request
read, the answer printed, the span, the metrics and the line of the log, with a channel that answers at once.

Then whole processes on the same HTTP server, with as much to do as they can: eight connections, one request after the
other on each. Of these it is the processor time of all threads per request. The routes beside have no token, limit,
trace or log: one answers with `json_format` and orjson, one with the same bytes each time. All code is slower there
than by itself, because it shares the processors, and their caches, with the client and the backend.

    PYTHONPATH=.:gen .venv/bin/python -m bench.requests [--requests 4000] [--rounds 5] 2>/dev/null

The log goes to standard error, as it does in production.
"""

import argparse
import asyncio
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import orjson
import uvloop
from baton.api.v1 import auth_service_pb2
from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from services.chassis import telemetry
from services.chassis.auth import TokenExchange
from services.chassis.channel import open_channel
from services.gateway.app import build_app
from services.gateway.backends import open_channels
from services.gateway.config import Settings
from services.gateway.server import serve
from tests.support.processes import free_port
from tests.support.waiting import wait_until
from tests.unit.gateway.garden import (
    ACCESS_TOKEN,
    PACKAGE,
    TOKEN,
    Contract,
    Greenhouse,
    compile_contract,
    start_backend,
)

_SCRATCH = "BENCH_SCRATCH"
CONNECTIONS = 8
_SERVICE = f"/{PACKAGE}.GreenhouseService"
_EXCHANGE = "/baton.api.v1.AuthService/ExchangeToken"
_EXCHANGED = auth_service_pb2.ExchangeTokenResponse(access_token=ACCESS_TOKEN)
_NO_LIMIT = "1000000/second"
KINDS = ("gateway", "json_format", "nothing")
PLANT = {
    "id": "0199a1b2-7a3c-7def-8123-456789abcdef",
    "name": "basil, the one by the window",
    "state": "PLANT_STATE_THIRSTY",
    "height": 31,
    "planted_at": "2026-03-01T08:30:00.123456Z",
    "light": "3600s",
    "notes": {"region": "eu", "size": 3},
    "seed": "c2VlZA==",
    "water": "1250",
    "steps": "17",
    "mass": 0.25,
    "warmth": 21.5,
    "edible": True,
    "tags": ["herb", "kitchen"],
    "labels": {"owner": "kitchen", "row": "3"},
    "pot": {"width": 120, "material": "clay"},
    "shelf": "upper",
    "nickname": "b",
    "offset": -4,
    "leaves": 48,
}
assert len(PLANT) == 20
PATHS = {"one message of 20 fields": f"/plants/{PLANT['id']}", "a list of 100": "/plants/"}


def _contract() -> Contract:
    return compile_contract(Path(tempfile.mkdtemp(dir=os.environ[_SCRATCH])))


def backend(port: int) -> None:
    """Serves a hundred plants until it is ended."""

    async def run() -> None:
        contract = _contract()
        plant = json_format.ParseDict(PLANT, contract.plant())
        plants = {PLANT["id"]: plant} | {str(number): plant for number in range(99)}
        server, _, _ = await start_backend(Greenhouse(contract, plants=plants), address=f"127.0.0.1:{port}")
        await server.wait_for_termination()

    asyncio.run(run())


def front(kind: str, port: int, backend_port: int) -> None:
    """Serves one of KINDS until it is ended."""

    async def run() -> None:
        telemetry.configure(kind, exposes=True)
        app = _app(kind, f"127.0.0.1:{backend_port}")
        await serve(app, "127.0.0.1", port, until=asyncio.Event().wait, grace_seconds=1)

    uvloop.run(run())


def _app(kind: str, backend_address: str) -> ASGIApp:
    contract = _contract()
    settings = Settings(backends=f"{PACKAGE}={backend_address}", auth_address=backend_address, rate_limit=_NO_LIMIT)
    channels = open_channels(settings.addresses())
    if kind == "gateway":
        return build_app(settings, channels, TokenExchange(open_channel(backend_address)), contract.comments)
    stub = contract.stubs.GreenhouseServiceStub(channels[PACKAGE])
    write = _written if kind == "json_format" else _always_the_same()

    async def one(request: Request) -> Response:
        asked = contract.messages.GetPlantRequest(plant_id=request.path_params["id"])
        return Response(write((await stub.GetPlant(asked)).plant), media_type="application/json")

    async def many(request: Request) -> Response:
        return Response(
            write(await stub.ListPlants(contract.messages.ListPlantsRequest())), media_type="application/json"
        )

    return Starlette(routes=[Route("/plants/{id}", one), Route("/plants/", many)])


def _written(message: Message) -> bytes:
    return orjson.dumps(json_format.MessageToDict(message, preserving_proto_field_name=True))


def _always_the_same() -> Callable[[Message], bytes]:
    written: dict[str, bytes] = {}

    def write(message: Message) -> bytes:
        name = message.DESCRIPTOR.name
        if name not in written:
            written[name] = _written(message)
        return written[name]

    return write


class InstantChannel:
    """Answers each method with a message that is there already."""

    def __init__(self, answers: Mapping[str, Message]) -> None:
        self._answers = answers

    def unary_unary(self, path: str, **_: object) -> Callable[..., "InstantAnswer"]:
        answer = InstantAnswer(self._answers.get(path))
        return lambda *_, **__: answer

    unary_stream = unary_unary


class InstantAnswer:
    """A call that is over."""

    def __init__(self, message: Message | None) -> None:
        self._message = message

    def __await__(self) -> Generator[None, None, Message | None]:
        return self._message
        yield


def by_itself(requests: int, rounds: int) -> None:
    """Prints what the gateway adds to the HTTP server and the gRPC client."""
    contract = _contract()
    telemetry.configure("gateway", exposes=True)
    plant = json_format.ParseDict(PLANT, contract.plant())
    one, many = (
        contract.messages.GetPlantResponse(plant=plant),
        contract.messages.ListPlantsResponse(items=[plant] * 100),
    )
    channel: Any = InstantChannel({f"{_SERVICE}/GetPlant": one, f"{_SERVICE}/ListPlants": many, _EXCHANGE: _EXCHANGED})
    settings = Settings(backends=f"{PACKAGE}=unix:nowhere", auth_address="unix:nowhere", rate_limit=_NO_LIMIT)
    app = build_app(settings, {PACKAGE: channel}, TokenExchange(channel), contract.comments)
    for title, path in PATHS.items():
        found = [uvloop.run(_serving(app, path, requests)) for _ in range(rounds)]
        print(f"{title:26}{min(found):14.0f}")


async def _serving(app: ASGIApp, path: str, requests: int) -> float:
    """Microseconds of processor time per request."""
    headers = [(b"host", b"bench"), (b"authorization", f"Bearer {TOKEN}".encode())]
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
    scope |= {"headers": headers, "client": ("127.0.0.1", 1)}

    sent: list[str] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(part: Any) -> None:
        sent.append(part["type"])
        assert part.get("status", 200) == 200, part

    before = time.process_time()
    for _ in range(requests):
        await app(dict(scope), receive, send)
    assert len(sent) == 2 * requests
    return (time.process_time() - before) / requests * 1e6


async def ask(port: int, path: str, requests: int) -> None:
    """Asks so often over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    for _ in range(requests):
        writer.write(asked)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200 "), head
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    writer.close()


def processor_seconds(process_id: int) -> float:
    """What a process has used so far, all its threads together."""
    user, system = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def measure(process_id: int, port: int, path: str, requests: int) -> float:
    """Microseconds of processor time per request."""

    async def ask_all() -> None:
        await asyncio.gather(*(ask(port, path, requests // CONNECTIONS) for _ in range(CONNECTIONS)))

    before = processor_seconds(process_id)
    uvloop.run(ask_all())
    return (processor_seconds(process_id) - before) / requests * 1e6


def compare(requests: int, rounds: int) -> None:
    """Prints a line for each path: the medians of so many rounds, all kinds in each."""
    with ExitStack() as stack:
        backend_port = free_port()
        stack.enter_context(_running(backend, backend_port))
        ports = {kind: free_port() for kind in KINDS}
        ids = {kind: stack.enter_context(_running(front, kind, ports[kind], backend_port)) for kind in KINDS}
        for port in (backend_port, *ports.values()):
            wait_until(partial(_listens, port))
        print(f"{'microseconds per request':26}" + "".join(f"{kind:>14}" for kind in KINDS) + f"{'its own':>14}")
        for title, path in PATHS.items():
            found: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for number in range(-1, rounds):
                for kind in KINDS:
                    taken = measure(ids[kind], ports[kind], path, requests if number >= 0 else 200)
                    if number >= 0:
                        found[kind].append(taken)
            medians = [statistics.median(found[kind]) for kind in KINDS]
            print(f"{title:26}" + "".join(f"{one:14.0f}" for one in (*medians, medians[0] - medians[-1])))


@contextmanager
def _running(serving: Callable[..., None], *arguments: object) -> Iterator[int]:
    process = get_context("spawn").Process(target=serving, args=arguments, daemon=True)
    process.start()
    try:
        assert process.pid is not None
        yield process.pid
    finally:
        process.terminate()
        process.join()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    """Runs what was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-requests-") as scratch:
        os.environ[_SCRATCH] = scratch
        by_itself(options.requests, options.rounds)
        compare(options.requests, options.rounds)


if __name__ == "__main__":
    main()
