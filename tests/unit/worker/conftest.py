"""A worker, the service it works for, and the spans it makes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from baton.tasks.v1 import work_service_pb2
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.chassis.clock import SystemClock
from services.worker.worker import Worker
from tests.support.fake_tasks import FakeTasks
from tests.support.grpc import channel_of
from tests.support.mcp_servers import Gate, serve_behind_gate, serve_over_http

# Who stops a worker waits for the end of its long-poll.
_LONGEST_POLL_SECONDS = 0.1
Working = Callable[..., AbstractAsyncContextManager[asyncio.Event]]


class Tasks(FakeTasks):
    """One that has no patience with workers that wait, and whose answers can be held up on their way."""

    def __init__(self) -> None:
        super().__init__()
        self.answers_arrive = asyncio.Event()
        self.answers_arrive.set()

    async def LeaseRuns(self, request: Any, context: Any) -> work_service_pb2.LeaseRunsResponse:
        try:
            answer = await asyncio.wait_for(super().LeaseRuns(request, context), _LONGEST_POLL_SECONDS)
        except TimeoutError:
            return work_service_pb2.LeaseRunsResponse()
        await self.answers_arrive.wait()
        return answer


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    fake = Tasks()
    async with fake.serving():
        yield fake


@pytest.fixture
def working(tasks: FakeTasks) -> Working:
    """Runs a worker while the block lasts; the value stops it sooner. Leaving waits until it has stopped."""

    @asynccontextmanager
    async def run(**options: Any) -> AsyncIterator[asyncio.Event]:
        stop = asyncio.Event()

        async def stopped() -> None:
            await stop.wait()

        async with channel_of(tasks.address) as channel:
            worker = Worker(channel, channel, channel, clock=SystemClock(), **{"grace_seconds": 5.0, **options})
            running = asyncio.create_task(worker.run(stopped()))
            try:
                yield stop
            finally:
                stop.set()
                await running

    return run


@pytest.fixture
async def http_server(tasks: FakeTasks) -> AsyncIterator[str]:
    async with serve_over_http() as url:
        tasks.add_http_server("mis", url)
        yield url


@pytest.fixture
async def gate(tasks: FakeTasks) -> AsyncIterator[Gate]:
    """What can keep requests from the server `mis`."""
    async with serve_behind_gate() as (url, gate):
        tasks.add_http_server("mis", url)
        yield gate


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()
