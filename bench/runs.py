"""The queue, end to end over gRPC: how fast runs are queued, picked up and done, on each engine.

The tasks service, the worker and the callers are processes of their own, and PostgreSQL is durable, as in production.
All figures of one engine come from one run:

    PYTHONPATH=.:gen .venv/bin/python bench/runs.py [--engine sqlite|postgres] [--runs 20000] [--peers PYTHON]
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import uvloop
from baton.tasks.v1 import (
    run_service_pb2,
    run_service_pb2_grpc,
    task_pb2,
    task_service_pb2,
    task_service_pb2_grpc,
    work_service_pb2,
    work_service_pb2_grpc,
)
from grpc.aio import Channel
from sqlalchemy import Engine, column, create_engine, func, select, table, text

from bench.databases import empty_database
from services.chassis import telemetry
from services.chassis.clock import SystemClock
from services.chassis.columns import Id, Timestamp
from services.chassis.ids import new_id
from services.chassis.structs import to_struct
from services.worker.worker import Worker
from tests.support.databases import context_url
from tests.support.grpc import Signer, channel_of
from tests.support.processes import free_port
from tests.support.waiting import await_until

SECRET = b"only for benchmarks, on loopback"
SCOPES = ("tasks:read", "tasks:write", "runs:read", "runs:work", "tools:read", "tools:admin")
PIPELINES = {"no step": [], "one echo.test step": [{"uses": "echo.test", "with": {"text": "hello"}, "save_as": "said"}]}
CALLERS = 64
BATCH = 1000


@contextmanager
def tasks_service(url: str, folder: Path) -> Iterator[str]:
    """A tasks service of its own process; the value is its address."""
    address = f"127.0.0.1:{free_port()}"
    (folder / "cursor-key").write_bytes(SECRET)
    environment = {
        "BATON_LISTEN": address,
        "BATON_DATABASE_URL": url,
        "BATON_JWKS_FILE": str(folder / "jwks.json"),
        "BATON_CURSOR_KEY_FILE": str(folder / "cursor-key"),
        "BATON_LOG_LEVEL": "WARNING",
    }
    with subprocess.Popen([sys.executable, "-m", "services.tasks"], env=os.environ | environment) as process:
        try:
            yield address
        finally:
            process.terminate()


@contextmanager
def worker_process(address: str, token: str, concurrency: int) -> Iterator[None]:
    """A worker of its own process."""
    command = [sys.executable, __file__, "--work-for", address, "--concurrency", str(concurrency)]
    with subprocess.Popen(command, env=os.environ | {"BENCH_TOKEN": token, "BATON_LOG_LEVEL": "WARNING"}) as process:
        try:
            yield
        finally:
            process.terminate()


async def work(address: str, concurrency: int) -> None:
    """The worker's process: works until it is ended."""
    async with channel_of(address, os.environ["BENCH_TOKEN"]) as channel:
        worker = Worker(channel, channel, channel, clock=SystemClock(), concurrency=concurrency)
        await worker.run(asyncio.Event().wait())  # type: ignore[arg-type]


class Bench:
    """The callers of one engine."""

    def __init__(self, engine: str, channel: Channel, rows: Engine, arguments: argparse.Namespace) -> None:
        self._name = engine
        self._tasks = task_service_pb2_grpc.TaskServiceStub(channel)
        self._runs = run_service_pb2_grpc.RunServiceStub(channel)
        self._work = work_service_pb2_grpc.WorkServiceStub(channel)
        self._rows = rows
        self._given = arguments

    async def create(self, pipeline: list[dict[str, object]], **fields: object) -> str:
        """A manual task; answers its id."""
        request = task_service_pb2.CreateTaskRequest(
            title="bench", schedule_kind=task_pb2.SCHEDULE_KIND_MANUAL, payload=to_struct({"pipeline": pipeline})
        )
        for name, value in fields.items():
            setattr(request, name, value)
        return (await self._tasks.CreateTask(request)).task.id

    async def enqueue(self, task_id: str) -> None:
        """The three ways to queue runs."""
        await self._rate("enqueue, one caller", 1000, 1, lambda: self._run_now(task_id))
        await self._rate(f"enqueue, {CALLERS} callers", 10_000, CALLERS, lambda: self._run_now(task_id))
        await self._rate(
            f"enqueue, {CALLERS} callers with a key", 10_000, CALLERS, lambda: self._run_now(task_id, new_id())
        )
        await self._rate(f"enqueue, batches of {BATCH}", self._given.runs, 1, lambda: self._batch(task_id), BATCH)

    async def process(self, address: str, token: str, name: str, pipeline: list[dict[str, object]]) -> None:
        """How many runs one worker process does per second."""
        task_id = await self.create(pipeline)
        for _ in range(self._given.runs // BATCH):
            await self._batch(task_id)
        with worker_process(address, token, self._given.concurrency):
            await await_until(lambda: not self.live(), timeout=600, every=1)
        self._print(f"process, {name}", f"{self._given.runs / self._seconds(task_id):10.0f} runs/s")

    async def pickup(self, task_id: str) -> None:
        """From the call that queues a run to its arrival at a worker that waits for one."""
        taken = []
        for _ in range(self._given.pickups):
            request = work_service_pb2.LeaseRunsRequest(worker_id=new_id(), limit=1, wait_seconds=5)
            waiting = asyncio.create_task(self._leased(request))
            await asyncio.sleep(0.02)
            begun = time.perf_counter()
            await self._run_now(task_id)
            taken.append((await waiting - begun) * 1000)
        taken.sort()
        p99 = taken[int(len(taken) * 0.99)]
        self._print("idle pickup", f"{statistics.median(taken):7.1f} ms p50  {p99:7.1f} ms p99")

    async def _leased(self, request: work_service_pb2.LeaseRunsRequest) -> float:
        response = await self._work.LeaseRuns(request, timeout=10)
        arrived = time.perf_counter()
        reports = [
            work_service_pb2.RunReport(lease=run.lease, succeeded=work_service_pb2.RunSucceeded())
            for run in response.runs
        ]
        await self._work.ReportRuns(work_service_pb2.ReportRunsRequest(reports=reports))
        return arrived

    async def _run_now(self, task_id: str, key: str = "") -> None:
        await self._tasks.RunTaskNow(task_service_pb2.RunTaskNowRequest(task_id=task_id, request_id=key))

    async def _batch(self, task_id: str) -> None:
        runs = [run_service_pb2.NewRun(task_id=task_id)] * BATCH
        await self._runs.CreateRuns(run_service_pb2.CreateRunsRequest(runs=runs), timeout=30)

    async def _rate(
        self, name: str, count: int, callers: int, one: Callable[[], Awaitable[None]], each: int = 1
    ) -> None:
        left = count // each

        async def caller() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await one()

        begun = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        self._print(name, f"{count / (time.perf_counter() - begun):10.0f} runs/s")

    def _seconds(self, task_id: str) -> float:
        """From the first lease of a task's runs to the end of the last, by the database's own clock."""
        columns = [column(name, Timestamp()) for name in ("started_at", "finished_at")]
        history = table("run_history", column("task_id", Id()), *columns)
        ends = select(func.min(history.c.started_at), func.max(history.c.finished_at))
        with self._rows.connect() as connection:
            begun, ended = connection.execute(ends.where(history.c.task_id == task_id)).one()
        return float((ended - begun).total_seconds())

    def live(self) -> int:
        with self._rows.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM runs")).scalar_one())

    def empty(self) -> None:
        """Takes all runs out of the queue."""
        with self._rows.begin() as connection:
            connection.execute(text("DELETE FROM runs"))

    def _print(self, what: str, figure: str) -> None:
        print(f"{self._name:9} {what:34} {figure}", flush=True)


async def measure(engine: str, arguments: argparse.Namespace) -> None:
    """All figures of one engine."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        signer = Signer.trusted_through(folder / "jwks.json")
        with empty_database(engine) as admin_url, tasks_service(context_url(admin_url, "tasks"), folder) as address:
            url = context_url(admin_url, "tasks")
            token = signer.token(SCOPES)
            schema = {"options": "-c search_path=tasks"} if engine == "postgres" else {}
            rows = create_engine(url.replace("postgresql://", "postgresql+psycopg://"), connect_args=schema)
            async with channel_of(address, token) as channel:
                await asyncio.wait_for(channel.channel_ready(), 30)
                bench = Bench(engine, channel, rows, arguments)
                await bench.enqueue(await bench.create([]))
                bench.empty()
                await bench.pickup(await bench.create([]))
                bench.empty()
                for name, pipeline in PIPELINES.items():
                    await bench.process(address, token, name, pipeline)
            rows.dispose()
            if engine == "postgres" and arguments.peers:
                compare(arguments.peers, admin_url)


def compare(python: str, admin_url: str) -> None:
    """What others reach on the same server."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE peers")
    command = [python, str(Path(__file__).with_name("peers.py")), admin_url.rpartition("/")[0] + "/peers"]
    subprocess.run(command, check=True, timeout=600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["sqlite", "postgres"], action="append")
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--pickups", type=int, default=300)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--peers", help="a Python that has what peers.py compares with; only on PostgreSQL")
    parser.add_argument("--work-for", help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ.setdefault("BATON_LOG_LEVEL", "WARNING")
    telemetry.configure("bench")
    if given.work_for:
        uvloop.run(work(given.work_for, given.concurrency))
        return
    for engine in given.engine or ["postgres", "sqlite"]:
        uvloop.run(measure(engine, given))


if __name__ == "__main__":
    main()
