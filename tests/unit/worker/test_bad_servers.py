"""Tool servers that hang, flood, die, lie and cling: each a real process, and none keeps anybody else waiting."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from baton.tasks.v1 import tool_pb2

from services.worker.failures import ToolFailed, ToolTimedOut
from services.worker.limits import ProcessLimits
from services.worker.tools import results
from services.worker.tools.connection import Patience
from services.worker.tools.mcp_pool import McpPool
from tests.support import proc
from tests.support.waiting import await_until

MEGABYTE = 2**20


class Client:
    """Calls tools of one server through a pool of its own."""

    def __init__(self, pool: McpPool, *fault: str) -> None:
        self.pool = pool
        self.server = tool_pb2.ToolServer(
            name="bad",
            transport=tool_pb2.TOOL_TRANSPORT_STDIO,
            command=[sys.executable, "-m", "tests.support.plain_mcp_server", *fault],
            env={"PYTHONPATH": "."},
        )

    async def call(self, tool: str, timeout: float = 20.0, **arguments: Any) -> Any:
        result = await self.pool.call(self.server, tool, arguments, timeout=timeout, key="run:step")
        return results.from_mcp(result)


Start = Callable[..., Client]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Makes a client; all that it has started is gone afterwards."""
    pools = []

    def make(*fault: str, **options: Any) -> Client:
        pools.append(McpPool(**options))
        return Client(pools[-1], *fault)

    yield make
    for pool in pools:
        await pool.close()


async def test_one_that_dies_at_the_start(start: Start) -> None:
    with pytest.raises(ToolFailed, match=r"^tool server bad cannot be reached: it ended with exit code 1$"):
        await start("dies").call("pid")


async def test_one_that_never_answers_the_handshake(start: Start) -> None:
    client = start("mute", patience=Patience(to_open=1.0))
    before = set(proc.children(os.getpid()))
    for _ in range(2):
        with pytest.raises(ToolFailed, match=r"tool server bad (was not ready|cannot be reached: it was not) .*1 s"):
            await client.call("pid")
    await await_until(lambda: set(proc.children(os.getpid())) <= before)


@pytest.mark.parametrize("ending", ["forget", "close"])
async def test_one_that_hangs_at_the_start_ends_when_it_is_not_wanted_any_more(start: Start, ending: str) -> None:
    client = start("mute")
    before = set(proc.children(os.getpid()))
    calling = asyncio.create_task(client.pool.tools(client.server))
    await await_until(lambda: set(proc.children(os.getpid())) - before)
    calling.cancel()
    client.pool.forget("bad")
    if ending == "close":
        async with asyncio.timeout(10):
            await client.pool.close()
    await await_until(lambda: set(proc.children(os.getpid())) <= before)


async def test_one_that_closes_its_output_and_lives(start: Start) -> None:
    with pytest.raises(ToolFailed, match="cannot be reached: it closed its standard output"):
        await start("closed").call("pid")
    client = start()
    first = await client.call("pid")
    with pytest.raises(ToolFailed, match="ended before it answered: it closed its standard output"):
        await client.call("close_output")
    await await_until(lambda: proc.gone(first))
    assert await client.call("pid") != first


async def test_one_that_dies_while_it_is_called(start: Start) -> None:
    client = start()
    neighbour = asyncio.create_task(client.call("sleep", seconds=60))
    await client.call("pid")
    with pytest.raises(ToolFailed, match=r"ended before it answered: it ended by signal 9 \(SIGKILL\)"):
        await client.call("crash")
    with pytest.raises(ToolFailed, match="ended before it answered"):
        await neighbour
    await client.call("pid")


@pytest.mark.parametrize(
    ("what", "most"),
    [  # bytes that it may write in a second, with what it may write at once
        ("garbage", 3 * MEGABYTE),
        ("notifications", 3 * MEGABYTE),
        ("answers", 3 * MEGABYTE),
        ("stderr", 8 * MEGABYTE),
    ],
)
async def test_one_that_writes_without_end_is_not_listened_to_without_end(start: Start, what: str, most: float) -> None:
    client = start(patience=Patience(to_linger=0.5))
    before = proc.reset_peak()
    process_id = await client.call("pid")
    with contextlib.suppress(ToolTimedOut):  # its answer may be behind the flood
        await client.call("flood", timeout=2.0, **{"with": what})
    begun, written = time.monotonic(), proc.written(process_id)
    await await_until(lambda: time.monotonic() > begun + 1)
    seconds = time.monotonic() - begun
    assert proc.written(process_id) - written < most * seconds
    # Whoever calls it now waits no longer than agreed, and the next one gets a new process.
    with pytest.raises(ToolTimedOut):
        await client.call("sleep", timeout=1.0, seconds=60)
    await await_until(lambda: proc.gone(process_id))
    assert await client.call("pid") != process_id
    assert proc.peak() - before < 100 * MEGABYTE


async def test_one_that_writes_a_line_without_end(start: Start) -> None:
    client = start()
    process_id = await client.call("pid")
    before = proc.reset_peak()
    with pytest.raises(ToolFailed, match="it wrote a message of more than 33554432 bytes"):
        await client.call("endless_line")
    assert proc.peak() - before < 150 * MEGABYTE
    await await_until(lambda: proc.gone(process_id))
    assert await client.call("pid") != process_id


async def test_one_that_asks_without_end_and_reads_no_answer(start: Start) -> None:
    client = start()
    process_id = await client.call("pid")
    before = proc.reset_peak()
    with pytest.raises(ToolFailed, match="ended before it answered: it does not read what it is sent"):
        await client.call("ask")
    assert proc.peak() - before < 100 * MEGABYTE
    await await_until(lambda: proc.gone(process_id))


async def test_one_that_writes_what_is_no_message(start: Start) -> None:
    client = start()
    assert await client.call("garble") == "done"
    assert await client.call("broken_text") == "a\N{REPLACEMENT CHARACTER}b"


async def test_one_that_answers_twice_or_somebody_else(start: Start) -> None:
    client = start()
    assert await client.call("twice") == "first"
    with pytest.raises(ToolTimedOut):
        await client.call("wrong_id", timeout=0.5)
    assert await client.call("twice") == "first"


async def test_an_answer_of_ten_megabytes_is_told_and_does_no_harm(start: Start) -> None:
    client = start()
    answers = [await client.call("big", size=10 * MEGABYTE) for _ in range(3)]
    assert [len(answer) for answer in answers] == [10 * MEGABYTE] * 3
    with pytest.raises(ToolFailed, match="output is 10485762 bytes, at most 4194304"):
        results.checked(answers[0])


async def test_a_call_that_hangs_is_told_to_stop_and_ends_with_the_process(start: Start) -> None:
    client = start(patience=Patience(to_linger=1.0))
    first = await client.call("pid")
    neighbour = asyncio.create_task(client.call("sleep", seconds=60))
    listener = asyncio.create_task(client.call("hear"))
    with pytest.raises(ToolTimedOut, match=r"within 0\.2 s"):
        await client.call("sleep", timeout=0.2, seconds=60)
    # Others may end what they have begun, but not for ever; and nobody new gets the old process.
    assert await client.call("pid") != first
    assert len(await listener) == 1
    with pytest.raises(ToolFailed, match="another call had not been answered in time"):
        await neighbour
    await await_until(lambda: proc.gone(first))


async def test_a_call_that_is_given_up_by_its_caller_ends_with_the_process(start: Start) -> None:
    client = start()
    first = await client.call("pid")
    call = asyncio.create_task(client.call("sleep", seconds=60))
    await client.call("pid")
    call.cancel()
    await asyncio.wait([call])
    await await_until(lambda: proc.gone(first))


async def test_one_that_does_not_want_to_end(start: Start) -> None:
    client = start()
    process_id = await client.call("cling")
    begun = time.monotonic()
    await client.pool.close()
    assert proc.gone(process_id)
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize("how", ["closed", "killed", "launcher killed"])
async def test_what_a_server_has_started_ends_with_it(start: Start, how: str) -> None:
    client = start()
    server = await client.call("pid")
    offspring = await client.call("beget")
    assert not any(map(proc.gone, offspring))
    launcher = proc.parent(server)
    if how == "closed":
        await client.pool.close()
    elif how == "killed":
        os.kill(server, signal.SIGKILL)
    else:
        os.kill(launcher, signal.SIGKILL)
        offspring, missed = offspring[:1], offspring[1:]
        for process_id in missed:  # who has left the group
            os.kill(process_id, signal.SIGKILL)
    await await_until(lambda: proc.gone(server) and all(map(proc.gone, offspring)), timeout=5)
    if how != "closed":
        assert await client.call("pid") != server


async def test_its_processes_have_limits(start: Start) -> None:
    limited = start(limits=ProcessLimits(memory_bytes=256 * MEGABYTE, open_files=100))
    assert await limited.call("hog", megabytes=300) == "refused"
    assert await limited.call("hog", megabytes=100) == "got 100 MB"
    assert await limited.call("open_files", count=1000) < 100
    assert await limited.call("core") == [0, 0]
    assert await start(limits=ProcessLimits(memory_bytes=0)).call("hog", megabytes=300) == "got 300 MB"
    assert await start().call("hog", megabytes=2100) == "refused"


@pytest.mark.parametrize(
    ("structured", "message"),
    [
        ({"n": "three"}, "does not fit its schema: output.n: 'three' is not of type 'integer'"),
        ({"m": 3}, "does not fit its schema: output: 'n' is a required property"),
        (None, "has no structured content, which its schema promises"),
    ],
)
async def test_one_that_does_not_answer_what_it_promised(start: Start, structured: Any, message: str) -> None:
    client = start()
    with pytest.raises(ToolFailed) as failed:
        await client.call("promise", **({} if structured is None else {"structured": structured}))
    assert str(failed.value) == f"the output of bad.promise {message}"
    assert await client.call("promise", structured={"n": 3}) == {"n": 3}
