"""How many lines a second one client adds to agents' logs, over gRPC, for as long as it likes.

The sessions service and the client are processes of their own, and PostgreSQL is durable, as in production. Each line
has 200 characters and a small payload; all of its indexes are written. The client sends the next batch when the last
one is answered, for so many seconds; `least` is the worst of these seconds.

    PYTHONPATH=.:gen .venv/bin/python -m bench.logs [--engine sqlite|postgres] [--seconds 10]
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import psycopg
import uvloop
from baton.sessions.v1 import agent_service_pb2, feed_service_pb2, log_pb2, log_service_pb2
from baton.sessions.v1.agent_service_pb2_grpc import AgentServiceStub
from baton.sessions.v1.feed_service_pb2_grpc import FeedServiceStub
from baton.sessions.v1.log_service_pb2_grpc import LogServiceStub
from grpc.aio import Channel
from joserfc.jwk import OKPKey

from bench.databases import empty_database
from services.chassis.ids import new_id
from services.chassis.structs import to_struct
from tests.support.databases import context_url
from tests.support.grpc import Signer, channel_of
from tests.support.processes import free_port
from tests.support.waiting import await_until

SECRET = b"only for benchmarks, on loopback"
CONTENT = "The quick brown fox jumps over the lazy dog, and the dog does not mind. " * 3


@contextmanager
def sessions_service(url: str, folder: Path) -> Iterator[str]:
    """A sessions service of its own process; the value is its address."""
    address = f"127.0.0.1:{free_port()}"
    (folder / "cursor-key").write_bytes(SECRET)
    environment = {
        "BATON_LISTEN": address,
        "BATON_DATABASE_URL": url,
        "BATON_SIGNING_KEY_FILE": str(folder / "signing-key.json"),
        "BATON_AUDIT_KEY_FILE": str(folder / "audit-key"),
        "BATON_JWKS_FILE": str(folder / "jwks.json"),
        "BATON_CURSOR_KEY_FILE": str(folder / "cursor-key"),
        "BATON_LOG_LEVEL": "ERROR",
    }
    with subprocess.Popen([sys.executable, "-m", "services.sessions"], env=os.environ | environment) as process:
        try:
            yield address
        finally:
            process.terminate()


def batch_of(agent_id: str, size: int, *, keyed: bool) -> log_service_pb2.AppendAgentLogsRequest:
    """So many lines."""
    line = log_service_pb2.NewAgentLog(
        task_slug="bench",
        session_id="session-1",
        event_category=log_pb2.EVENT_CATEGORY_RESPONSE,
        event_type="tool_result",
        content=CONTENT[:200],
        payload=to_struct({"tool": "Bash", "exit_code": 0}),
        summary="it went well",
    )
    request = log_service_pb2.AppendAgentLogsRequest(agent_id=agent_id, entries=[line] * size)
    if keyed:
        request.request_id = new_id()
    return request


class Client:
    """One client, with one connection."""

    def __init__(self, channel: Channel, seconds: float) -> None:
        self._logs = LogServiceStub(channel)
        self._agents = AgentServiceStub(channel)
        self._feed = FeedServiceStub(channel)
        self._seconds = seconds

    async def agent(self) -> str:
        """A new agent."""
        request = agent_service_pb2.CreateAgentRequest(name=new_id(), scopes=["logs:write"])
        return (await self._agents.CreateAgent(request, wait_for_ready=True)).agent.id

    async def append(self, size: int, *, at_once: int = 1, keyed: bool = False) -> None:
        """Batches, one after the other in each of `at_once` lines, until the time is over."""
        agent_id, begun = await self.agent(), time.perf_counter()
        taken: list[float] = []
        each_second: Counter[int] = Counter()

        async def send() -> None:
            while (at := time.perf_counter()) < begun + self._seconds:
                await self._logs.AppendAgentLogs(batch_of(agent_id, size, keyed=keyed))
                answered = time.perf_counter()
                taken.append((answered - at) * 1000)
                each_second[int(answered - begun)] += size

        await asyncio.gather(*(send() for _ in range(at_once)))
        rate = len(taken) * size / (time.perf_counter() - begun)
        least = min(each_second[second] for second in range(int(self._seconds)))
        name = f"batches of {size}" + (f", {at_once} at once" if at_once > 1 else "") + (", with keys" if keyed else "")
        p50, p99 = statistics.median(taken), sorted(taken)[int(len(taken) * 0.99)]
        print(f"{name:32} {rate:8.0f} lines/s {least:8.0f} least {p50:7.1f} ms p50 {p99:7.1f} ms p99", flush=True)

    async def watched(self) -> None:
        """From the call that writes one line to its arrival at somebody who watches, when nothing else happens."""
        agent_id, taken = await self.agent(), []
        watch = aiter(self._feed.WatchFeed(feed_service_pb2.WatchFeedRequest()))
        await anext(watch)
        for _ in range(200):
            begun = time.perf_counter()
            await self._logs.AppendAgentLogs(batch_of(agent_id, 1, keyed=False))
            await anext(watch)
            taken.append((time.perf_counter() - begun) * 1000)
        taken.sort()
        print(f"{'told to who watches':32} {statistics.median(taken):7.1f} ms p50 {taken[197]:7.1f} ms p99", flush=True)


async def measure(engine: str, seconds: float) -> None:
    """All of one engine."""
    with (
        TemporaryDirectory(prefix="bench-") as name,
        empty_database(engine) as admin_url,
        sessions_service(context_url(admin_url, "sessions"), Path(name)) as address,
    ):
        key_file = Path(name) / "signing-key.json"
        await await_until(key_file.exists, timeout=30)
        signer = Signer(OKPKey.import_key(orjson.loads(key_file.read_bytes())))
        print(engine)
        async with channel_of(address, signer.token(["admin"])) as channel:
            client = Client(channel, seconds)
            await client.watched()
            await client.append(1000)
            await client.append(1000, keyed=True)
            await client.append(100)
            await client.append(1, at_once=64)
            await client.append(1000, at_once=4)
            if engine == "postgres":
                with psycopg.connect(admin_url) as connection:
                    size = connection.execute(
                        "SELECT pg_total_relation_size('sessions.agent_logs') / count(*) FROM sessions.agent_logs"
                    ).fetchone()
                print(f"{'bytes per line, with indexes':32} {size[0] if size else 0:8.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgres"))
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    for engine in [options.engine] if options.engine else ["postgres", "sqlite"]:
        uvloop.run(measure(engine, options.seconds))


if __name__ == "__main__":
    main()
