"""What surrounds every method of every service."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from joserfc.jwk import OKPKey
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from services.chassis import call, telemetry
from services.chassis.concerns import REPLAYED_KEY
from services.chassis.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unimplemented,
)
from services.chassis.policy import policies
from tests.integration.chassis.newsstand import BUY, KIOSK, LOOK, Newsstand, messages, open_newsstand
from tests.support.grpc import Signer
from tests.support.waiting import await_until


def _buy(**fields: Any) -> Any:
    return messages.BuyRequest(**{"title": "Sunday", **fields})


async def test_a_good_call_is_answered_and_knows_its_caller(newsstand: Newsstand) -> None:
    async def who(request: Any) -> Any:
        return messages.LookResponse(text=call.caller().agent_id)

    newsstand.servicer.answer = who
    response = await newsstand.caller({"kiosk:read"}, agent_id="ada").Look(messages.LookRequest())
    assert response.text == "ada"


@pytest.mark.parametrize("role", ["planner", ""])
async def test_a_call_knows_what_its_caller_works_as(newsstand: Newsstand, role: str) -> None:
    async def as_what(request: Any) -> Any:
        return messages.LookResponse(text=call.caller().role)

    newsstand.servicer.answer = as_what
    caller = newsstand.stub(newsstand.signer.token({"kiosk:read"}, role=role))
    assert (await caller.Look(messages.LookRequest())).text == role


async def test_a_call_without_a_token_is_refused(newsstand: Newsstand) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await newsstand.stub().Look(messages.LookRequest())
    assert refusal.value.reason == "TOKEN_MISSING"
    assert newsstand.servicer.requests == []


async def test_bad_tokens_are_refused_and_none_is_told_why(newsstand: Newsstand) -> None:
    stranger = Signer(OKPKey.generate_key("Ed25519", auto_kid=True))
    expired = newsstand.signer.token({"admin"}, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    told = set()
    for token in ("garbage", "a.b.c", expired, stranger.token({"admin"})):
        with pytest.raises(Unauthenticated) as refusal:
            await newsstand.stub(token).Look(messages.LookRequest())
        told.add((refusal.value.reason, refusal.value.message))
    assert len(told) == 1
    assert newsstand.servicer.requests == []


async def test_credentials_of_another_kind_are_refused(newsstand: Newsstand) -> None:
    async with grpc.aio.insecure_channel(newsstand.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await KIOSK.stubs.KioskServiceStub(channel).Look(
                messages.LookRequest(), metadata=(("authorization", "Basic YWRhOmFkYQ=="),)
            )
    assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_a_missing_scope_is_named(newsstand: Newsstand) -> None:
    with pytest.raises(PermissionDenied) as refusal:
        await newsstand.caller({"kiosk:read", "kiosk"}).Buy(_buy())
    assert refusal.value.reason == "SCOPE_MISSING"
    assert refusal.value.metadata == {"scope": "kiosk:write"}
    assert newsstand.servicer.requests == []


async def test_admin_may_do_everything(newsstand: Newsstand) -> None:
    await newsstand.caller({"admin"}).Look(messages.LookRequest())
    assert len(newsstand.servicer.requests) == 1


async def test_a_method_for_any_caller_needs_a_token_and_no_scope(newsstand: Newsstand) -> None:
    await newsstand.caller(set()).Ask(messages.LookRequest())
    with pytest.raises(Unauthenticated):
        await newsstand.stub().Ask(messages.LookRequest())


async def test_a_method_whose_request_is_the_credential_needs_no_token(newsstand: Newsstand) -> None:
    assert (await newsstand.stub().Redeem(messages.LookRequest())).text == "nothing"


async def test_a_method_without_a_policy_is_open_to_nobody(tmp_path: Path) -> None:
    declared = {path: policy for path, policy in policies([KIOSK.descriptor]).items() if path != LOOK}
    async with open_newsstand(tmp_path / "jwks.json", declared) as newsstand:
        with pytest.raises(PermissionDenied) as refusal:
            await newsstand.caller({"admin"}).Look(messages.LookRequest())
        assert refusal.value.reason == "METHOD_NOT_OPEN"
        assert newsstand.servicer.requests == []


async def test_a_method_that_does_not_exist_is_unimplemented(newsstand: Newsstand) -> None:
    unknown = newsstand.channel().unary_unary("/kiosk.v1.KioskService/Steal")
    with pytest.raises(Unimplemented):
        await unknown(b"")


async def test_a_request_against_the_rules_never_reaches_the_method(newsstand: Newsstand) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await newsstand.caller().Buy(_buy(title="", lines=[{"text": "much too long"}]))
    assert [violation.field for violation in refusal.value.violations] == ["title", "lines[0].text"]
    assert newsstand.servicer.requests == []


async def test_who_may_not_call_is_not_told_what_is_wrong_with_the_request(newsstand: Newsstand) -> None:
    with pytest.raises(PermissionDenied):
        await newsstand.caller({"kiosk:read"}).Buy(_buy(title=""))


async def test_hundreds_of_violations_are_still_an_answer(newsstand: Newsstand) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await newsstand.caller().Buy(_buy(lines=[{"text": "much too long"}] * 1000))
    assert refusal.value.violations[0].field == "lines[0].text"
    assert refusal.value.message.endswith("(and 999 more)")


async def test_bytes_that_are_no_request_are_the_callers_fault(newsstand: Newsstand) -> None:
    raw = newsstand.channel(newsstand.signer.token({"admin"})).unary_unary(BUY)
    too_deep = _buy(lines=[{}])
    value = too_deep.lines[0].value
    for _ in range(60):
        value = value.list_value.values.add()
    for request in (b"\xff\xff\xff", too_deep.SerializeToString()):
        with pytest.raises(InvalidArgument) as refusal:
            await raw(request)
        assert refusal.value.reason == "REQUEST_UNREADABLE"


async def test_a_call_ends_at_its_callers_deadline(newsstand: Newsstand) -> None:
    cancelled = newsstand.servicer.hangs()
    with pytest.raises(DeadlineExceeded):
        await newsstand.caller().Look(messages.LookRequest(), timeout=0.2)
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_a_call_knows_how_long_it_may_take(newsstand: Newsstand) -> None:
    left: list[float] = []

    async def note(request: Any) -> Any:
        left.append(call.seconds_left())
        return messages.LookResponse()

    newsstand.servicer.answer = note
    await newsstand.caller().Look(messages.LookRequest(), timeout=7)
    async with grpc.aio.insecure_channel(newsstand.address) as channel:
        token = (("authorization", f"Bearer {newsstand.signer.token({'admin'})}"),)
        await KIOSK.stubs.KioskServiceStub(channel).Look(messages.LookRequest(), metadata=token)
    assert 5 < left[0] <= 7.1
    assert 28 < left[1] <= 30.1


async def test_a_timeout_inside_the_method_is_not_the_callers_deadline(newsstand: Newsstand) -> None:
    newsstand.servicer.fails_with(TimeoutError("the printer"))
    with pytest.raises(Internal):
        await newsstand.caller().Look(messages.LookRequest())


async def test_a_replayed_answer_is_marked(newsstand: Newsstand) -> None:
    async def replay(request: Any) -> Any:
        serving = call.current.get()
        assert serving is not None
        serving.replayed = request.title == "again"
        return messages.BuyResponse()

    newsstand.servicer.answer = replay
    caller = newsstand.caller()
    for title, marked in (("again", True), ("once", False)):
        calling = caller.Buy(_buy(title=title))
        await calling
        assert (dict(await calling.trailing_metadata()).get(REPLAYED_KEY) == "true") is marked


async def test_a_fault_is_logged_once_with_its_cause_and_trace_and_answered_without(
    newsstand: Newsstand, caplog: pytest.LogCaptureFixture
) -> None:
    newsstand.servicer.fails_with(KeyError("the till's combination is 4711"))
    with pytest.raises(Internal) as failure:
        await newsstand.caller().Look(messages.LookRequest())
    assert (failure.value.message, failure.value.metadata) == ("internal error", {})
    (record,) = caplog.records
    assert (record.message, record.levelno, vars(record)["method"]) == ("call_failed", logging.ERROR, LOOK)
    assert "4711" in caplog.text


async def test_even_a_declared_fault_keeps_its_cause_to_itself(newsstand: Newsstand) -> None:
    newsstand.servicer.fails_with(Internal("the till's combination is 4711", metadata={"till": "4711"}))
    with pytest.raises(Internal) as failure:
        await newsstand.caller().Look(messages.LookRequest())
    assert "4711" not in repr(vars(failure.value))


async def test_an_error_of_the_caller_is_not_logged(newsstand: Newsstand, caplog: pytest.LogCaptureFixture) -> None:
    newsstand.servicer.fails_with(NotFound("sold out"))
    with pytest.raises(NotFound):
        await newsstand.caller().Look(messages.LookRequest())
    assert caplog.records == []


async def test_a_caller_who_leaves_ends_the_work_and_is_no_error(
    newsstand: Newsstand, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled = newsstand.servicer.hangs()
    calling = asyncio.ensure_future(newsstand.caller().Look(messages.LookRequest()))
    await await_until(lambda: newsstand.servicer.requests)
    calling.cancel()
    await asyncio.wait_for(cancelled.wait(), 5)
    assert [record for record in caplog.records if record.name.startswith("services")] == []


async def test_the_span_of_a_call_continues_its_callers_trace(
    newsstand: Newsstand, spans: InMemorySpanExporter
) -> None:
    seen: list[str] = []

    async def note(request: Any) -> Any:
        seen.append(telemetry.trace_id())
        return messages.LookResponse()

    newsstand.servicer.answer = note
    with telemetry.tracer().start_as_current_span("errand"):
        await newsstand.caller(agent_id="ada").Look(messages.LookRequest())
        assert seen == [telemetry.trace_id()]
    errand = await await_until(lambda: {(span.name, span.kind): span for span in spans.get_finished_spans()})
    client, server = errand[LOOK[1:], SpanKind.CLIENT], errand[LOOK[1:], SpanKind.SERVER]
    assert server.parent.span_id == client.context.span_id
    assert client.parent.span_id == errand["errand", SpanKind.INTERNAL].context.span_id
    assert server.attributes == {
        telemetry.RPC_SYSTEM: "grpc",
        telemetry.RPC_METHOD: "kiosk.v1.KioskService/Look",
        telemetry.RPC_STATUS: "OK",
        telemetry.CALLER: "ada",
    }
    assert client.attributes[telemetry.RPC_STATUS] == "OK"


async def _server_span(spans: InMemorySpanExporter) -> Any:
    return await await_until(
        lambda: next((span for span in spans.get_finished_spans() if span.kind is SpanKind.SERVER), None)
    )


async def test_the_span_of_a_failed_call_tells_the_error_that_was_raised(
    newsstand: Newsstand, spans: InMemorySpanExporter
) -> None:
    newsstand.servicer.fails_with(NotFound("sold out", reason="SOLD_OUT"))
    with pytest.raises(NotFound):
        await newsstand.caller().Look(messages.LookRequest())
    span = await _server_span(spans)
    assert span.attributes[telemetry.RPC_STATUS] == "NOT_FOUND"
    assert span.attributes[telemetry.ERROR_REASON] == "SOLD_OUT"
    assert span.attributes[telemetry.ERROR_TYPE] == "NotFound"
    assert span.status.status_code is not StatusCode.ERROR  # it is the caller's


async def test_the_span_of_a_fault_is_an_error_and_shows_no_cause(
    newsstand: Newsstand, spans: InMemorySpanExporter
) -> None:
    newsstand.servicer.fails_with(KeyError("4711"))
    with pytest.raises(Internal):
        await newsstand.caller().Look(messages.LookRequest())
    span = await _server_span(spans)
    assert span.attributes[telemetry.RPC_STATUS] == "INTERNAL"
    assert span.attributes[telemetry.ERROR_TYPE] == "KeyError"
    assert span.status.status_code is StatusCode.ERROR
    assert "4711" not in span.to_json()


async def test_refusals_before_the_method_have_their_span_too(
    newsstand: Newsstand, spans: InMemorySpanExporter
) -> None:
    with pytest.raises(Unauthenticated):
        await newsstand.stub("garbage").Look(messages.LookRequest())
    assert (await _server_span(spans)).attributes[telemetry.ERROR_REASON] == "TOKEN_INVALID"


async def test_a_stream_is_guarded_like_any_method(newsstand: Newsstand) -> None:
    for stub, refused in ((newsstand.stub(), Unauthenticated), (newsstand.caller({"kiosk:write"}), PermissionDenied)):
        with pytest.raises(refused):
            async for _ in stub.Print(messages.LookRequest()):
                pass
    assert newsstand.servicer.requests == []


async def test_an_error_in_the_middle_of_a_stream_arrives_after_what_came_before(newsstand: Newsstand) -> None:
    async def pages() -> AsyncIterator[Any]:
        yield messages.LookResponse(text="one")
        raise NotFound("no more paper", reason="PAPER_OUT")

    newsstand.servicer.pages = pages
    reading = aiter(newsstand.caller().Print(messages.LookRequest()))
    assert (await anext(reading)).text == "one"
    with pytest.raises(NotFound) as failure:
        await anext(reading)
    assert failure.value.reason == "PAPER_OUT"


async def test_a_fault_in_the_middle_of_a_stream_is_masked_and_logged(
    newsstand: Newsstand, caplog: pytest.LogCaptureFixture
) -> None:
    async def pages() -> AsyncIterator[Any]:
        yield messages.LookResponse(text="one")
        raise KeyError("4711")

    newsstand.servicer.pages = pages
    with pytest.raises(Internal) as failure:
        async for _ in newsstand.caller().Print(messages.LookRequest()):
            pass
    assert failure.value.message == "internal error"
    assert [record.message for record in caplog.records] == ["call_failed"]


async def test_a_stream_without_a_deadline_may_last(newsstand: Newsstand) -> None:
    left: list[float] = []

    async def pages() -> AsyncIterator[Any]:
        left.append(call.seconds_left())
        yield messages.LookResponse(text="one")

    newsstand.servicer.pages = pages
    async for _ in newsstand.caller().Print(messages.LookRequest()):
        pass
    async for _ in newsstand.caller().Print(messages.LookRequest(), timeout=5):
        pass
    assert left[0] == float("inf")
    assert 3 < left[1] <= 5.1


async def test_a_stream_ends_at_its_callers_deadline(newsstand: Newsstand) -> None:
    ended = asyncio.Event()

    async def pages() -> AsyncIterator[Any]:
        try:
            yield messages.LookResponse(text="one")
            await asyncio.Event().wait()
        finally:
            ended.set()

    newsstand.servicer.pages = pages
    with pytest.raises(DeadlineExceeded):
        async for _ in newsstand.caller().Print(messages.LookRequest(), timeout=0.3):
            pass
    await asyncio.wait_for(ended.wait(), 5)


async def test_a_reader_who_leaves_ends_the_stream_behind_it_and_its_span(
    newsstand: Newsstand, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()

    async def pages() -> AsyncIterator[Any]:
        try:
            while True:
                yield messages.LookResponse(data=b"x" * 100_000)
        finally:
            await asyncio.sleep(0)  # what ends may wait, as for a database
            ended.set()

    newsstand.servicer.pages = pages
    reading = newsstand.caller().Print(messages.LookRequest())
    async for _ in reading:
        break
    reading.cancel()
    await asyncio.wait_for(ended.wait(), 5)
    assert (await _server_span(spans)).attributes[telemetry.RPC_STATUS] == "CANCELLED"
    assert [record for record in caplog.records if record.name.startswith(("services", "opentelemetry"))] == []


async def test_a_stream_is_no_faster_than_its_reader(newsstand: Newsstand) -> None:
    reading, written = await _reading_too_slowly(newsstand)
    assert written < 200
    reading.cancel()


async def test_a_reader_who_leaves_while_a_page_is_being_sent_is_no_error(
    newsstand: Newsstand, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    reading, _ = await _reading_too_slowly(newsstand)
    reading.cancel()
    assert (await _server_span(spans)).attributes[telemetry.RPC_STATUS] == "CANCELLED"
    assert [record for record in caplog.records if record.name.startswith("services")] == []


async def _reading_too_slowly(newsstand: Newsstand) -> tuple[Any, int]:
    """Somebody who has taken one page, and how many were written until the buffers in between were full."""
    written = 0

    async def pages() -> AsyncIterator[Any]:
        nonlocal written
        for _ in range(1000):
            written += 1
            yield messages.LookResponse(data=b"x" * 100_000)

    newsstand.servicer.pages = pages
    reading = newsstand.caller().Print(messages.LookRequest())
    async for _ in reading:
        break
    before = -1
    while before != written:
        before = written
        await asyncio.sleep(0.1)
    return reading, written
