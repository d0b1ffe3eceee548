"""The server of a stream goes away, wants a password, or is reached over TLS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.tasks.running import Tasks, one_engine
from tests.integration.tasks.streams import consumed, consumer, numbers, step
from tests.support.certificates import Authority
from tests.support.valkey import Stream, message
from tests.support.waiting import await_until


async def test_a_server_that_goes_away_is_waited_for_and_said_once(
    tasks: Tasks, server: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="services.tasks.stream")
    server.add(message(0))
    async with consumer(tasks, server) as one:
        assert await step(tasks, one) == 0.0
        server.stop()
        pauses = [await step(tasks, one) for _ in range(4)]
        assert all(0 < pause <= 0.1 * 2**turn for turn, pause in enumerate(pauses))
        await tasks.service.ready()
        server.start()
        server.add(message(1))
        await await_until(lambda: consumed(one, tasks, [0, 1]))
    assert [record.message for record in caplog.records] == ["stream_consumed", "stream_unavailable", "stream_consumed"]


@one_engine
async def test_a_password_is_used_and_never_logged(
    tasks: Tasks, server: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    server.add(message(0))
    with server.client() as client:
        client.config_set("requirepass", "canary-right")
    address = server.url.removeprefix("redis://")
    async with consumer(tasks, server, url=f"redis://:canary-wrong@{address}") as refused:
        assert await step(tasks, refused) > 0
    async with consumer(tasks, server, url=f"redis://:canary-right@{address}") as let_in:
        assert await step(tasks, let_in) == 0.0
    assert await numbers(tasks) == [0]
    assert "stream_unavailable" in caplog.text
    assert "canary" not in caplog.text + repr([vars(record) for record in caplog.records])


@one_engine
@pytest.mark.parametrize(("name", "expected"), [("localhost", [0]), ("elsewhere.test", [])])
async def test_over_tls_the_server_must_be_the_one_that_was_named(
    tasks: Tasks, server: Stream, tmp_path: Path, name: str, expected: list[int]
) -> None:
    server.add(message(0))
    authority = Authority(tmp_path)
    async with _encrypted(server, authority, name) as port:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={authority.file}"
        async with consumer(tasks, server, url=url) as one:
            await step(tasks, one)
    assert await numbers(tasks) == expected


@asynccontextmanager
async def _encrypted(server: Stream, authority: Authority, name: str) -> AsyncIterator[int]:
    """What speaks TLS, with a certificate for `name`, before a server that does not; answers its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(_copy(reader, behind_writer), _copy(behind_reader, writer))

    encrypted = await asyncio.start_server(serve, "localhost", 0, ssl=authority.server(name))
    async with encrypted:
        yield encrypted.sockets[0].getsockname()[1]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
