"""The gateway over a real socket: downloads, broken ones above all, and how the process stops."""

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from services.chassis.errors import PermissionDenied
from tests.support.processes import free_port
from tests.support.waiting import await_until
from tests.unit.gateway.garden import PACKAGE, Contract, Garden
from tests.unit.gateway.serving import listens, served

ROOT = Path(__file__).parents[3]
LAST_CHUNK = b"\r\n0\r\n\r\n"


async def test_a_download_arrives_whole(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer = await gateway.ask("/plants.csv?rows=3")
        answer = await reader.readuntil(LAST_CHUNK)
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: text/csv; charset=utf-8" in head
    assert b'content-disposition: attachment; filename="plants.csv"' in head
    assert body == b"8\r\nid,name\n\r\n8\r\n0,basil\n\r\n8\r\n1,basil\n\r\n8\r\n2,basil\n" + LAST_CHUNK


async def test_a_download_that_breaks_off_never_looks_whole(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer = await gateway.ask("/plants.csv?rows=9&fail_after=2")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert b"200 OK" in answer
    assert b"1,basil" in answer
    assert not answer.endswith(LAST_CHUNK)


async def test_a_download_that_fails_before_it_begins_is_a_problem(garden: Garden) -> None:
    garden.greenhouse.fails_with = PermissionDenied("no")
    async with served(garden) as gateway:
        reader, writer = await gateway.ask("/plants.csv?rows=9")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert b"403 Forbidden" in head
    assert b"application/problem+json" in head


async def test_a_client_that_leaves_ends_the_work_behind(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer = await gateway.ask("/plants.csv?endless=true")
        await reader.readexactly(100_000)
        assert not garden.greenhouse.export_ended.is_set()
        writer.transport.abort()
        await asyncio.wait_for(garden.greenhouse.export_ended.wait(), 5)


@pytest.mark.parametrize("path", ["/plants/", "/plants.csv"])
async def test_a_client_that_leaves_before_the_answer_is_waited_for_no_more(garden: Garden, path: str) -> None:
    garden.greenhouse.hold = asyncio.Event()
    async with served(garden) as gateway:
        _, writer = await gateway.ask(path)
        await await_until(lambda: _is_busy(garden))
        writer.transport.abort()
        # Sooner than the call's own time would run out.
        await asyncio.wait_for(garden.greenhouse.given_up.wait(), 3)


async def test_an_answer_that_takes_a_while_arrives(garden: Garden) -> None:
    garden.greenhouse.hold = asyncio.Event()
    async with served(garden) as gateway:
        reader, writer = await gateway.ask("/plants/")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(garden.greenhouse.given_up.wait(), 0.5)
        garden.greenhouse.hold.set()
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        writer.close()


async def test_a_slow_client_is_waited_for(garden: Garden) -> None:
    async with served(garden, grace_seconds=0.1) as gateway:
        _, writer = await gateway.ask("/plants.csv?endless=true")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(garden.greenhouse.export_ended.wait(), 0.5)
        writer.transport.abort()


async def test_stopping_finishes_what_is_in_progress(garden: Garden) -> None:
    garden.greenhouse.hold = asyncio.Event()
    async with served(garden) as gateway:
        reader, writer = await gateway.ask("/plants/")
        await await_until(lambda: _is_busy(garden))
        gateway.stop.set()
        await await_until(lambda: _refuses(gateway.port))
        garden.greenhouse.hold.set()
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        await asyncio.wait_for(gateway.serving, 3)
        writer.close()


async def _is_busy(garden: Garden) -> bool:
    return bool(garden.greenhouse.requests)


async def _refuses(port: int) -> bool:
    return not await listens(port)


async def test_stopping_waits_for_nothing_longer_than_its_grace(garden: Garden) -> None:
    garden.greenhouse.hold = asyncio.Event()
    async with served(garden, grace_seconds=0.1) as gateway:
        reader, writer = await gateway.ask("/plants/")
        await await_until(lambda: _is_busy(garden))
        assert await gateway.stopped() < 2
        assert b"200" not in await asyncio.wait_for(reader.read(), 5)
        writer.close()
    garden.greenhouse.hold.set()


async def test_stopping_does_not_wait_for_connections_that_ask_for_nothing(garden: Garden) -> None:
    async with served(garden) as gateway:
        writers = []
        for start in (b"", b"GET /plants/ HT"):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(start)
            writers.append(writer)
        assert await gateway.stopped() < 2
        for writer in writers:
            writer.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_stops_when_told_to_and_prints_only_log_lines(
    contract: Contract, garden: Garden, number: signal.Signals
) -> None:
    port = free_port()
    process = await _start(contract, garden, port)
    assert process.stderr is not None
    first = await asyncio.wait_for(process.stderr.readline(), 60)
    process.send_signal(number)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out) == (0, b"")
    assert [json.loads(line)["event"] for line in (first, *err.splitlines())] == ["serving", "stopped"]


async def test_the_process_says_when_its_port_is_taken(contract: Contract, garden: Garden) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = await _start(contract, garden, taken.getsockname()[1])
        _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert b"cannot listen on 127.0.0.1" in err
    assert len(err.splitlines()) == 1


async def _start(contract: Contract, garden: Garden, port: int) -> asyncio.subprocess.Process:
    built = Path(str(contract.messages.__file__)).parents[2]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "gen"), str(built)]),
        "BATON_BACKENDS": f"{PACKAGE}={garden.address}",
        "BATON_AUTH_ADDRESS": garden.address,
        "BATON_PORT": str(port),
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.gateway"),
        env=environment,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
