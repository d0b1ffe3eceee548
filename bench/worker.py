"""How many runs one worker process does per second, against a tasks service that costs it nothing.

The service is a process of its own that has leases ready, 100 to an answer, and accepts every report; so what is
measured is the worker and gRPC, not a database. Start it with:

    PYTHONPATH=.:gen .venv/bin/python -m bench.worker [--runs 50000] [--concurrency 100] [--profile]
"""

import argparse
import asyncio
import cProfile
import gc
import pstats
import resource
import secrets
import sys
import time
from typing import Any

import grpc
import uvloop
from baton.tasks.v1 import work_service_pb2 as pb
from google.protobuf.struct_pb2 import Struct

from services.chassis import structs, telemetry
from services.chassis.channel import open_channel
from services.chassis.clock import SystemClock
from services.chassis.ids import new_id
from services.worker.worker import Worker

ECHO = {"uses": "echo.test", "with": {"text": "hello ${params.name}"}, "save_as": "said"}
PIPELINES: dict[str, list[dict[str, Any]]] = {"no step": [], "one echo.test step": [ECHO]}


class InstantTasks:
    """Hands out runs of one pipeline and notes when the last of them has been reported.

    Its answers are put together from parts that were serialized beforehand: lists may be, entry by entry.
    """

    def __init__(self, pipeline: list[dict[str, Any]], runs: int) -> None:
        payload = structs.to_struct({"pipeline": pipeline, "params": {"name": "world"}})
        self._queue = [_entry(payload) for _ in range(runs)]
        self._receipt = pb.ReportRunsResponse(receipts=[pb.ReportReceipt(accepted=True)]).SerializeToString()
        self._unreported = runs
        self._begun = self._cpu = 0.0
        self.calls = 0
        self.done = asyncio.Event()
        self.seconds = self.cpu = 0.0

    async def lease(self, request: pb.LeaseRunsRequest, _: Any) -> bytes:
        if not self._begun:
            self._begun, self._cpu = time.perf_counter(), time.process_time()
        if not self._queue:
            await asyncio.sleep(request.wait_seconds)
        self.calls += 1
        taken, self._queue = self._queue[-request.limit :], self._queue[: -request.limit]
        return b"".join(taken)

    async def report(self, request: pb.ReportRunsRequest, _: Any) -> bytes:
        self.calls += 1
        self._unreported -= sum(report.WhichOneof("outcome") == "succeeded" for report in request.reports)
        if not self._unreported:
            self.seconds, self.cpu = time.perf_counter() - self._begun, time.process_time() - self._cpu
            self.done.set()
        return self._receipt * len(request.reports)

    async def renew(self, request: pb.RenewRunsRequest, _: Any) -> bytes:
        response = pb.RenewRunsResponse(leases=[pb.RenewedLease(run_id=lease.run_id) for lease in request.leases])
        for answer in response.leases:
            answer.expires_at.FromSeconds(int(time.time()) + 30)
        return response.SerializeToString()

    async def servers(self, _: Any, __: Any) -> bytes:
        return b""


def _entry(payload: Struct) -> bytes:
    traceparent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    lease = pb.Lease(run_id=new_id(), attempt=1, token=new_id())
    run = pb.LeasedRun(lease=lease, task_id=new_id(), task="a task", payload=payload, traceparent=traceparent)
    run.created_at.GetCurrentTime()
    run.expires_at.FromSeconds(int(time.time()) + 30)
    return pb.LeaseRunsResponse(runs=[run]).SerializeToString()


async def serve(pipeline: str, runs: int) -> None:
    """The service's process: prints its address, and once everything is reported what it took."""
    tasks, server = InstantTasks(PIPELINES[pipeline], runs), grpc.aio.server()
    work: dict[str, Any] = {
        "LeaseRuns": grpc.unary_unary_rpc_method_handler(tasks.lease, pb.LeaseRunsRequest.FromString),
        "RenewRuns": grpc.unary_unary_rpc_method_handler(tasks.renew, pb.RenewRunsRequest.FromString),
        "ReportRuns": grpc.unary_unary_rpc_method_handler(tasks.report, pb.ReportRunsRequest.FromString),
    }
    tools: dict[str, Any] = {"ListToolServers": grpc.unary_unary_rpc_method_handler(tasks.servers)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("baton.tasks.v1.WorkService", work),
            grpc.method_handlers_generic_handler("baton.tasks.v1.ToolService", tools),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await tasks.done.wait()
    print(tasks.seconds, tasks.calls, tasks.cpu, flush=True)
    await server.stop(None)


async def measure(pipeline: str, runs: int, concurrency: int, profiler: cProfile.Profile | None) -> None:
    """Lets a worker in this process do the runs and prints how fast it was."""
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.worker", "--serve", pipeline, "--runs", str(runs), stdout=asyncio.subprocess.PIPE
    )
    assert service.stdout is not None
    address = (await service.stdout.readline()).decode().strip()
    answer = b""

    async def finished() -> None:
        nonlocal answer
        answer = await service.stdout.readline()  # type: ignore[union-attr]

    async with open_channel(address) as channel:
        worker = Worker(channel, channel, channel, clock=SystemClock(), concurrency=concurrency)
        cpu = time.process_time()
        if profiler is not None:
            profiler.enable()
        await worker.run(finished())
        if profiler is not None:
            profiler.disable()
        cpu = time.process_time() - cpu
    seconds, calls, service_cpu = map(float, answer.split())
    await service.wait()
    print(
        f"{pipeline:20} {runs / seconds:8.0f} runs/s  {cpu / runs * 1e6:6.1f} µs CPU of the worker per run  "
        f"{service_cpu / runs * 1e6:6.1f} of the service  {calls / runs:5.3f} calls per run"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=50_000)
    arguments.add_argument("--concurrency", type=int, default=100)
    arguments.add_argument("--profile", action="store_true")
    arguments.add_argument("--serve", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.serve:
        uvloop.run(serve(given.serve, given.runs))
        return
    telemetry.configure("worker")
    gc.freeze()  # as the worker's own process does
    for pipeline in PIPELINES:
        profiler = cProfile.Profile() if given.profile else None
        uvloop.run(measure(pipeline, given.runs, given.concurrency, profiler))
        if profiler is not None:
            pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
