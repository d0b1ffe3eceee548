"""Calls to other services."""

import asyncio
import gc
import socket
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from grpc.aio import AioRpcError
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from services.chassis import call, telemetry
from services.chassis.channel import open_channel
from services.chassis.errors import (
    BY_CODE,
    DeadlineExceeded,
    Internal,
    NotFound,
    ServiceError,
    Unauthenticated,
    Unavailable,
    Violation,
)
from tests.integration.chassis.newsstand import KIOSK, Newsstand, messages
from tests.support.grpc import channel_of
from tests.support.waiting import await_until


def _nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("cls", [cls for cls in BY_CODE.values() if cls is not Internal])
async def test_errors_arrive_as_they_were_raised(newsstand: Newsstand, cls: type[ServiceError]) -> None:
    raised = cls(
        "ausverkauft für heute",
        reason="SOLD_OUT",
        metadata={"title": "Sunday"},
        violations=[Violation("title", "is sold out")],
        retry_after=1.5,
    )
    newsstand.servicer.fails_with(raised)
    with pytest.raises(ServiceError) as caught:
        await newsstand.caller().Look(messages.LookRequest())
    assert type(caught.value) is cls
    assert vars(caught.value) == vars(raised)


async def test_errors_of_streams_arrive_as_they_were_raised(newsstand: Newsstand) -> None:
    async def pages() -> AsyncIterator[Any]:
        raise NotFound("sold out", reason="SOLD_OUT", violations=[Violation("title", "is sold out")])
        yield

    newsstand.servicer.pages = pages
    with pytest.raises(NotFound) as caught:
        async for _ in newsstand.caller().Print(messages.LookRequest()):
            pass
    assert caught.value.reason == "SOLD_OUT"
    assert caught.value.violations == (Violation("title", "is sold out"),)


async def test_nobody_there_is_unavailable_at_once() -> None:
    async with channel_of(_nobody()) as channel:
        stub = KIOSK.stubs.KioskServiceStub(channel)
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await stub.Look(messages.LookRequest())
        with pytest.raises(Unavailable):
            async for _ in stub.Print(messages.LookRequest()):
                pass
    assert time.monotonic() - began < 3
    assert caught.value.reason == "SERVICE_UNREACHABLE"
    assert "127.0.0.1" not in caught.value.message


async def _greet_late(newsstand: Newsstand, client: StreamReader, answers: StreamWriter) -> None:
    """Passes on what is said, and the answers to it only half a second after the connection was made."""
    server, questions = await asyncio.open_unix_connection(newsstand.address.removeprefix("unix:"))

    async def pass_on(source: StreamReader, target: StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
        target.close()

    asking = asyncio.create_task(pass_on(client, questions))
    await asyncio.sleep(0.5)
    await pass_on(server, answers)
    await asking


async def test_a_server_that_has_much_to_do_and_greets_late_is_waited_for(newsstand: Newsstand) -> None:
    async with await asyncio.start_server(partial(_greet_late, newsstand), "127.0.0.1") as busy:
        host, port = busy.sockets[0].getsockname()
        async with channel_of(f"{host}:{port}", newsstand.signer.token(["kiosk:read"])) as channel:
            answer = await KIOSK.stubs.KioskServiceStub(channel).Look(messages.LookRequest())
    assert answer.text == "nothing"


async def test_a_server_that_stops_during_a_call_is_unavailable(newsstand: Newsstand) -> None:
    newsstand.servicer.hangs()
    calling = asyncio.ensure_future(newsstand.caller().Look(messages.LookRequest()))
    await await_until(lambda: newsstand.servicer.requests)
    await newsstand.server.stop(None)
    with pytest.raises(Unavailable):
        await calling


async def test_no_failure_is_an_error_of_grpc(newsstand: Newsstand) -> None:
    newsstand.servicer.fails_with(KeyError("4711"))
    caller = newsstand.caller()
    for calling in (caller.Look(messages.LookRequest()), caller.Look(messages.LookRequest(), timeout=0)):
        with pytest.raises(ServiceError) as caught:
            await calling
        assert not isinstance(caught.value, AioRpcError)
        assert caught.value.__cause__ is None


async def test_a_call_that_sets_no_timeout_ends_by_default(newsstand: Newsstand) -> None:
    newsstand.servicer.hangs()
    channel = open_channel(newsstand.address, default_timeout=0.2)
    newsstand.channels.append(channel)
    with pytest.raises(DeadlineExceeded):
        await KIOSK.stubs.KioskServiceStub(channel).Redeem(messages.LookRequest())


async def _time_left(newsstand: Newsstand, timeout: float | None = None) -> float:
    left: list[float] = []

    async def note(request: Any) -> Any:
        left.append(call.seconds_left())
        return messages.LookResponse()

    newsstand.servicer.answer = note
    await newsstand.caller().Look(messages.LookRequest(), timeout=timeout)
    return left[0]


@pytest.fixture
def serving() -> Any:
    """A call that is being served and has three seconds left."""
    token = call.current.set(call.Call("/a/b", expires_at=time.monotonic() + 3))
    yield
    call.current.reset(token)


async def test_a_call_may_take_ten_seconds_or_what_it_says(newsstand: Newsstand) -> None:
    assert 8 < await _time_left(newsstand) <= 10.1
    assert 18 < await _time_left(newsstand, timeout=20) <= 20.1


@pytest.mark.usefixtures("serving")
async def test_a_call_never_outlives_the_call_that_makes_it(newsstand: Newsstand) -> None:
    assert 1 < await _time_left(newsstand) <= 3
    assert 1 < await _time_left(newsstand, timeout=20) <= 3
    assert await _time_left(newsstand, timeout=1) <= 1.1


async def test_a_missing_token_fails_the_call_as_what_it_is(newsstand: Newsstand) -> None:
    class Lost:
        async def current(self) -> str:
            raise Unauthenticated("the token is not valid", reason="TOKEN_INVALID")

    channel = open_channel(newsstand.address, access_tokens=Lost())  # type: ignore[arg-type]
    newsstand.channels.append(channel)
    stub = KIOSK.stubs.KioskServiceStub(channel)
    with pytest.raises(Unauthenticated):
        await stub.Look(messages.LookRequest())
    with pytest.raises(Unauthenticated):
        async for _ in stub.Print(messages.LookRequest()):
            pass
    assert newsstand.servicer.requests == []


async def _endless() -> AsyncIterator[Any]:
    while True:
        yield messages.LookResponse(text="page")


async def test_a_stream_that_is_cancelled_ends_on_both_sides_without_a_sound(
    newsstand: Newsstand, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    newsstand.servicer.pages = _endless
    reading = newsstand.caller().Print(messages.LookRequest())
    async for _ in reading:
        assert reading.cancel()
        break
    assert await await_until(reading.cancelled)
    del reading
    gc.collect()
    await await_until(lambda: {span.kind for span in spans.get_finished_spans()} == {SpanKind.CLIENT, SpanKind.SERVER})
    assert caplog.records == []


async def test_a_reader_who_is_cancelled_ends_the_call(newsstand: Newsstand) -> None:
    ended = asyncio.Event()

    async def pages() -> AsyncIterator[Any]:
        try:
            yield messages.LookResponse(text="page")
            await asyncio.Event().wait()
        finally:
            ended.set()

    newsstand.servicer.pages = pages
    first = asyncio.Event()

    async def read() -> None:
        async for _ in newsstand.caller().Print(messages.LookRequest()):
            first.set()

    reading = asyncio.create_task(read())
    await asyncio.wait_for(first.wait(), 5)
    reading.cancel()
    await asyncio.wait_for(ended.wait(), 5)


async def test_a_stream_may_be_read_by_several_tasks(newsstand: Newsstand, caplog: pytest.LogCaptureFixture) -> None:
    async def pages() -> AsyncIterator[Any]:
        yield messages.LookResponse(text="one")
        yield messages.LookResponse(text="two")

    newsstand.servicer.pages = pages
    reading = aiter(newsstand.caller().Print(messages.LookRequest()))

    async def next_page() -> str:
        page = await anext(reading, None)
        return page.text if page else "end"

    assert [await asyncio.create_task(next_page()) for _ in range(3)] == ["one", "two", "end"]
    assert caplog.records == []


async def test_a_stream_is_a_child_of_the_span_it_was_asked_for_in(
    newsstand: Newsstand, spans: InMemorySpanExporter
) -> None:
    async def pages() -> AsyncIterator[Any]:
        yield messages.LookResponse(text="one")

    newsstand.servicer.pages = pages
    with telemetry.tracer().start_as_current_span("errand") as errand:
        async for _ in newsstand.caller().Print(messages.LookRequest()):
            # Reading does not make the stream's span the reader's own.
            assert telemetry.traceparent().split("-")[2] == f"{errand.get_span_context().span_id:016x}"
    await await_until(lambda: len(spans.get_finished_spans()) == 3)
    by_kind = {span.kind: span for span in spans.get_finished_spans()}
    client, server = by_kind[SpanKind.CLIENT], by_kind[SpanKind.SERVER]
    assert client.parent.span_id == errand.get_span_context().span_id
    assert server.parent.span_id == client.context.span_id
    assert client.attributes[telemetry.RPC_STATUS] == "OK"


async def test_the_span_of_a_failed_call_says_why(newsstand: Newsstand, spans: InMemorySpanExporter) -> None:
    newsstand.servicer.fails_with(NotFound("sold out", reason="SOLD_OUT"))
    with pytest.raises(NotFound):
        await newsstand.caller().Look(messages.LookRequest())
    (client,) = [span for span in spans.get_finished_spans() if span.kind is SpanKind.CLIENT]
    assert client.attributes[telemetry.RPC_STATUS] == "NOT_FOUND"
    assert client.attributes[telemetry.ERROR_REASON] == "SOLD_OUT"
