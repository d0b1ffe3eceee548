"""A worker, the service it works for, and the spans it makes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.chassis.clock import SystemClock
from services.worker.worker import Worker
from tests.support.fake_tasks import FakeTasks
from tests.support.grpc import channel_of
from tests.support.mcp_servers import Gate, serve_behind_gate, serve_over_http

Working = Callable[..., AbstractAsyncContextManager[asyncio.Event]]


@pytest.fixture
async def tasks() -> AsyncIterator[FakeTasks]:
    async with FakeTasks().serving() as fake:
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
            worker = Worker(channel, clock=SystemClock(), **{"grace_seconds": 5.0, **options})
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
