"""The built-in tool http.request, against a real server on this machine, which is allowed here."""

import base64
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from services.chassis.egress import allowed
from services.chassis.egress.client import Egress
from services.chassis.egress.guard import Guard
from services.worker import failures
from services.worker.failures import InputNotValid, InternalFault, RequestRejected, StepFailed, ToolFailed, ToolTimedOut
from services.worker.tools.builtin import BuiltinTools
from services.worker.tools.http_request import MAX_BODY_BYTES, HttpRequest
from services.worker.tools.use import Use, User
from tests.support.fake_tasks import FakeTasks
from tests.support.http_server import HttpServer, falls_silent_after, said
from tests.support.resolver import FakeResolver
from tests.unit.worker.conftest import Working

USE = Use(User("somebody"), timeout=5.0, key="run:step")
NAMES = {"service.example": ["127.0.0.1"], "inside.example": ["10.9.8.7"]}


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with HttpServer().serving() as serving:
        yield serving


@pytest.fixture
def egress() -> Egress:
    return Egress(Guard(allowed.parse("loopback"), FakeResolver(NAMES)))


@pytest.fixture
def tools(egress: Egress) -> BuiltinTools:
    return BuiltinTools({"http.request": HttpRequest(egress)})


async def call(tools: BuiltinTools, url: str, timeout: float = 5.0, **arguments: Any) -> Any:
    return await tools.call("http.request", {"url": url, **arguments}, Use(User("somebody"), timeout, "run:step"))


# What is sent.


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
async def test_every_method_and_the_key_of_those_that_change_something(
    tools: BuiltinTools, server: HttpServer, method: str
) -> None:
    server.answers["/"] = said(200)
    await call(tools, server.url("/"), method=method)
    (asked,) = server.asked
    assert asked.method == method
    assert asked.headers.get("idempotency-key") == (None if method in ("GET", "HEAD") else "run:step")


async def test_get_is_the_default_and_a_key_of_the_callers_own_is_kept(tools: BuiltinTools, server: HttpServer) -> None:
    server.answers["/"] = said(200)
    await call(tools, server.url("/"))
    await call(tools, server.url("/"), method="POST", headers={"IDEMPOTENCY-Key": "own"})
    first, second = server.asked
    assert (first.method, first.body, second.headers["idempotency-key"]) == ("GET", b"", "own")


async def test_headers_are_sent_and_no_trace_is(tools: BuiltinTools, server: HttpServer) -> None:
    server.answers["/"] = said(200)
    await call(tools, server.url("/"), headers={"Authorization": "Bearer x y", "Accept": "text/csv", "X-Empty": ""})
    (asked,) = server.asked
    expected = {"authorization": "Bearer x y", "accept": "text/csv", "x-empty": "", "user-agent": "baton"}
    assert asked.headers.items() >= expected.items()
    assert not asked.headers.keys() & {"traceparent", "tracestate", "baggage", "cookie", "content-length"}


@pytest.mark.parametrize(
    ("path", "query", "target"),
    [
        ("/a", {"q": "x y&z=/?#"}, "/a?q=x%20y%26z%3D%2F%3F%23"),
        ("/a", {"n": 5, "r": 0.5, "yes": True, "é": "ü"}, "/a?n=5&r=0.5&yes=true&%C3%A9=%C3%BC"),
        ("/a?b=1", {"tag": ["x", "y"], "none": []}, "/a?b=1&tag=x&tag=y"),
        ("/a?b=%2f#part?", {"c": "1"}, "/a?b=%2f&c=1"),
        ("/a?b=1", {}, "/a?b=1"),
        ("/a?b=1", {"b": "2"}, "/a?b=1&b=2"),
    ],
)
async def test_the_query_is_added_to_that_of_the_url(
    tools: BuiltinTools, server: HttpServer, path: str, query: dict[str, Any], target: str
) -> None:
    server.answers["/a"] = said(200)
    await call(tools, server.url(path), query=query)
    assert server.asked[0].target == target


@pytest.mark.parametrize(
    ("given", "body", "content_type"),
    [
        ({"json": {"a": [1, None, "é"]}}, '{"a":[1,null,"é"]}'.encode(), "application/json"),
        ({"json": None}, b"null", "application/json"),
        ({"json": ""}, b'""', "application/json"),
        ({"json": 1, "headers": {"content-TYPE": "application/ld+json"}}, b"1", "application/ld+json"),
        ({"text": "é\n"}, "é\n".encode(), "text/plain; charset=utf-8"),
        ({"text": ""}, b"", "text/plain; charset=utf-8"),
        ({"text": "a,b", "headers": {"Content-Type": "text/csv"}}, b"a,b", "text/csv"),
        ({}, b"", None),
    ],
)
async def test_the_body(
    tools: BuiltinTools, server: HttpServer, given: dict[str, Any], body: bytes, content_type: str | None
) -> None:
    server.answers["/"] = said(200)
    await call(tools, server.url("/"), method="POST", **given)
    (asked,) = server.asked
    assert (asked.body, asked.headers.get("content-type")) == (body, content_type)
    assert asked.headers["content-length"] == str(len(body))


# What is answered.


async def test_the_answer(tools: BuiltinTools, server: HttpServer) -> None:
    server.answers["/a"] = said(201, b'{"id": 7}', Content_Type="application/json", X_Two="1", set_cookie="secret=1")
    server.answers["/a"] = bytes(server.answers["/a"]).replace(b"X-Two: 1", b"X-Two: 1\r\nX-TWO: 2")
    assert await call(tools, server.url("/a?b=1#c")) == {
        "status": 201,
        "url": server.url("/a?b=1"),
        "headers": {"content-length": "9", "connection": "close", "content-type": "application/json", "x-two": "1, 2"},
        "json": {"id": 7},
    }


@pytest.mark.parametrize(
    ("content_type", "body", "becomes"),
    [
        ("application/json", b'{"a": 1}', {"json": {"a": 1}}),
        ("application/json", b"null", {"json": None}),
        ("application/json; charset=utf-8", b'\xef\xbb\xbf"\xc3\xa9"', {"json": "é"}),
        ("Application/Problem+JSON", b"[]", {"json": []}),
        ("application/json", b"9007199254740993", {"json": 9007199254740993}),
        ("application/json", b'{"a": 1', {"text": '{"a": 1'}),
        ("application/json", b"NaN", {"text": "NaN"}),
        ("application/json", b"", {"text": ""}),
        ("application/json", b'"\xff"', {"base64": "Iv8i"}),
        ("text/plain", b'{"a": 1}', {"text": '{"a": 1}'}),
        ("", b'{"a": 1}', {"text": '{"a": 1}'}),
        ("text/html; charset=UTF-8", b"<p>\xc3\xa9</p>", {"text": "<p>é</p>"}),
        ("text/plain; charset=ISO-8859-1", b"\xe9", {"text": "é"}),
        ('text/plain; charset="windows-1252"', b"\x80", {"text": "€"}),
        ("text/plain; charset=windows-1252", b"\x81", {"base64": "gQ=="}),
        ("text/plain; charset=unicode_escape", b"\\n", {"text": "\\n"}),
        ("text/plain", b"\xe9", {"base64": "6Q=="}),
        ("text/plain", b"a\x00b", {"base64": "YQBi"}),
        ("image/png", b"\x89PNG\r\n", {"base64": base64.b64encode(b"\x89PNG\r\n").decode()}),
    ],
)
async def test_what_a_body_becomes(
    tools: BuiltinTools, server: HttpServer, content_type: str, body: bytes, becomes: dict[str, Any]
) -> None:
    server.answers["/"] = said(200, body, **({"Content_Type": content_type} if content_type else {}))
    answer = await call(tools, server.url("/"))
    assert {name: answer[name] for name in answer if name not in ("status", "headers", "url")} == becomes


async def test_a_packed_body_is_unpacked(tools: BuiltinTools, server: HttpServer) -> None:
    packed = gzip.compress(b'{"a": 1}')
    server.answers["/"] = said(200, packed, Content_Type="application/json", Content_Encoding="gzip")
    assert (await call(tools, server.url("/")))["json"] == {"a": 1}


async def test_redirects_are_followed_when_asked(tools: BuiltinTools, server: HttpServer) -> None:
    server.answers["/"] = said(303, Location="/there")
    server.answers["/there"] = said(200, b"here")
    answer = await call(tools, server.url("/"), method="POST", json={}, follow_redirects=True)
    assert (answer["url"], answer["text"]) == (server.url("/there"), "here")
    assert ("idempotency-key" in server.asked[0].headers, "idempotency-key" in server.asked[1].headers) == (True, False)
    with pytest.raises(RequestRejected, match=r"^127\.0\.0\.1 answered 303$"):
        await call(tools, server.url("/"), follow_redirects=False)


@pytest.mark.parametrize(
    ("status", "expected", "succeeds"),
    [
        (200, None, True),
        (204, None, True),
        (299, None, True),
        (304, None, False),
        (404, None, False),
        (404, [404], True),
        (404, [200, 404], True),
        (500, [500], True),
        (302, [302], True),
        (200, [404], False),
        (200, [201], False),
    ],
)
async def test_which_statuses_are_a_success(
    tools: BuiltinTools, server: HttpServer, status: int, expected: list[int] | None, succeeds: bool
) -> None:
    server.answers["/"] = said(status, Location="/elsewhere")
    arguments = {} if expected is None else {"expect_status": expected}
    if succeeds:
        assert (await call(tools, server.url("/"), **arguments))["status"] == status
    else:
        with pytest.raises(StepFailed, match=f"answered {status}"):
            await call(tools, server.url("/"), **arguments)


# How it fails.


@pytest.mark.parametrize(
    ("status", "fails", "retryable"),
    [
        (301, RequestRejected, False),
        (400, RequestRejected, False),
        (401, RequestRejected, False),
        (403, RequestRejected, False),
        (404, RequestRejected, False),
        (408, ToolFailed, True),
        (409, RequestRejected, False),
        (422, RequestRejected, False),
        (429, ToolFailed, True),
        (500, ToolFailed, True),
        (501, ToolFailed, True),
        (502, ToolFailed, True),
        (503, ToolFailed, True),
        (504, ToolFailed, True),
        (599, ToolFailed, True),
    ],
)
async def test_the_status_says_whether_to_try_again(
    tools: BuiltinTools, server: HttpServer, status: int, fails: type[StepFailed], retryable: bool
) -> None:
    server.answers["/"] = said(status, b'{"error":\n\x00 "no luck"}', Retry_After="7")
    with pytest.raises(fails) as failed:
        await call(tools, server.url("/?key=secret"))
    assert str(failed.value) == f'127.0.0.1 answered {status}: {{"error": "no luck"}}'
    assert failures.run_error(failed.value).retryable is retryable
    assert failed.value.retry_after == (7 if status in (429, 503) else None)


async def test_a_server_that_names_a_date(tools: BuiltinTools, server: HttpServer) -> None:
    until = datetime.now(UTC) + timedelta(minutes=10)
    server.answers["/"] = said(503, Retry_After=format_datetime(until, usegmt=True))
    with pytest.raises(ToolFailed) as failed:
        await call(tools, server.url("/"))
    assert 590 < (failed.value.retry_after or 0) <= 601


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (said(404, b"x" * 10_000), "127.0.0.1 answered 404: " + "x" * 500),
        (said(404, b"\xff\xfe", Content_Type="image/png"), "127.0.0.1 answered 404: \ufffd\ufffd"),
        (said(404, b" \n"), "127.0.0.1 answered 404"),
        (said(404, b"packed", Content_Encoding="br"), "127.0.0.1 answered 404"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\nhello", "127.0.0.1 answered 404"),
    ],
)
async def test_the_servers_words_as_far_as_they_can_be_read(
    tools: BuiltinTools, server: HttpServer, answer: bytes, message: str
) -> None:
    server.answers["/"] = answer
    with pytest.raises(RequestRejected) as failed:
        await call(tools, server.url("/"))
    assert str(failed.value) == message


async def test_no_answer_in_time(tools: BuiltinTools, server: HttpServer) -> None:
    server.answers["/"] = falls_silent_after(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
    with pytest.raises(ToolTimedOut, match=r"no answer within 0\.2 s"):
        await call(tools, server.url("/"), timeout=0.2)


async def test_an_answer_that_is_broken_or_too_large_or_not_there(tools: BuiltinTools, server: HttpServer) -> None:
    server.answers["/broken"] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"
    server.answers["/large"] = said(200, b"x" * (MAX_BODY_BYTES + 1))
    server.answers["/fits"] = said(200, json.dumps("x" * 1000).encode() + b" " * (MAX_BODY_BYTES - 1002))
    server.answers["/circle"] = said(302, Location="/circle")
    with pytest.raises(ToolFailed, match="the connection broke"):
        await call(tools, server.url("/broken"))
    with pytest.raises(ToolFailed, match=f"more than {MAX_BODY_BYTES} bytes"):
        await call(tools, server.url("/large"))
    assert len((await call(tools, server.url("/fits")))["text"]) == MAX_BODY_BYTES
    with pytest.raises(RequestRejected, match="more than 5 redirects"):
        await call(tools, server.url("/circle"), follow_redirects=True)
    with pytest.raises(ToolFailed, match="cannot be resolved"):
        await call(tools, "https://unknown.example/")
    async with HttpServer().serving() as gone:
        pass
    with pytest.raises(ToolFailed, match="connection refused"):
        await call(tools, gone.url("/"))


@pytest.mark.parametrize(
    "url",
    [
        "https://inside.example/",
        "https://10.9.8.7/",
        "http://inside.example/",
        "https://169.254.169.254/latest/",
        "http://93.184.215.14/",
        "http://user:hunter2@service.example/",
        "ftp://service.example/",
        "service.example",
    ],
)
async def test_what_must_not_be_reached_is_an_input_that_is_not_valid(tools: BuiltinTools, url: str) -> None:
    with pytest.raises(InputNotValid, match=r"^with\.url is refused: ") as refused:
        await call(tools, url)
    assert not [word for word in ("10.", "169.", "93.", "hunter2", "inside") if word in str(refused.value)]


async def test_nothing_on_this_machine_is_reached_unless_the_operator_allows_it(server: HttpServer) -> None:
    closed = BuiltinTools(
        {"http.request": HttpRequest(Egress(Guard(resolver=FakeResolver({"localhost": ["127.0.0.1"]}))))}
    )
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(InputNotValid):
            await call(closed, server.url("/", host))
    assert server.connections == 0


async def test_a_redirect_to_what_must_not_be_reached(tools: BuiltinTools, server: HttpServer) -> None:
    server.answers["/"] = said(302, Location="https://inside.example/")
    with pytest.raises(InputNotValid, match=r"^with\.url redirects to a URL that is refused: only public addresses"):
        await call(tools, server.url("/"), follow_redirects=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "CONNECT"}, "with.method: 'CONNECT' is not one of"),
        ({"method": "get"}, "with.method: 'get' is not one of"),
        ({"url": 5}, "with.url: 5 is not of type 'string'"),
        ({"uri": "x"}, "with: Additional properties are not allowed ('uri' was unexpected)"),
        ({"query": {"a": None}}, "with.query.a: None is not"),
        ({"query": {"a": {"b": 1}}}, "with.query.a: {'b': 1} is not"),
        ({"query": {"a": [["b"]]}}, "with.query.a[0]: ['b'] is not"),
        ({"headers": {"a": 5}}, "with.headers.a: 5 is not of type 'string'"),
        ({"follow_redirects": "yes"}, "with.follow_redirects: 'yes' is not of type 'boolean'"),
        ({"expect_status": []}, "with.expect_status: [] should be non-empty"),
        ({"expect_status": 200}, "with.expect_status: 200 is not of type 'array'"),
        ({"expect_status": [100]}, "with.expect_status[0]: 100 is less than the minimum of 200"),
        ({"text": 5, "method": "POST"}, "with.text: 5 is not of type 'string'"),
        ({"text": "a", "json": 1, "method": "POST"}, "with.text: give either json or text, not both"),
        ({"text": "a"}, "with.text: a GET has no body: use POST, PUT, PATCH or DELETE"),
        ({"json": None, "method": "HEAD"}, "with.json: a HEAD has no body"),
        ({"headers": {"Host": "x"}}, "with.headers.Host: is set by Baton itself: leave it out"),
        *(
            ({"headers": {name: "x"}}, "is set by Baton itself: leave it out")
            for name in (
                "content-length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Authorization", "TE",
                "Trailer", "Upgrade", "Expect", "Accept-Encoding", "Proxy-Connection",
            )
        ),
        ({"headers": {"X-A": "1", "x-a": "2"}}, 'with.headers["x-a"]: is given twice'),
        ({"headers": {"X-A": "1", "x-a": "1"}}, 'with.headers["x-a"]: is given twice'),
        ({"headers": {"X A": "1"}}, 'with.headers["X A"]: is no name of a header'),
        ({"headers": {"X:A": "1"}}, "is no name of a header"),
        ({"headers": {"": "1"}}, "is no name of a header"),
        ({"headers": {"X\r\nHost": "1"}}, "is no name of a header"),
        ({"headers": {"X": "1\r\nHost: x"}}, "with.headers.X: must be printable ASCII"),
        ({"headers": {"X": "1\n"}}, "with.headers.X: must be printable ASCII"),
        ({"headers": {"X": "\x00"}}, "with.headers.X: must be printable ASCII"),
        ({"headers": {"X": " 1"}}, "with.headers.X: must be printable ASCII"),
        ({"headers": {"X": "é"}}, "with.headers.X: must be printable ASCII"),
    ],
)  # fmt: skip
async def test_an_input_that_is_not_valid_is_not_sent(
    tools: BuiltinTools, server: HttpServer, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputNotValid) as refused:
        await tools.call("http.request", {"url": server.url("/"), **arguments}, USE)
    assert message in str(refused.value)
    assert server.connections == 0


async def test_a_url_is_required(tools: BuiltinTools) -> None:
    with pytest.raises(InputNotValid, match="with: 'url' is a required property"):
        await tools.call("http.request", {}, USE)


async def test_a_built_in_tool_that_answers_something_else_than_it_says_is_our_fault() -> None:
    async def broken(arguments: dict[str, Any], use: Use) -> Any:
        return {"status": "200", "headers": {}, "url": "secret"}

    tools = BuiltinTools({"http.request": broken})
    with pytest.raises(InternalFault, match=r"^http\.request answered something else than it should$"):
        await tools.call("http.request", {"url": "https://service.example/"}, USE)


# In a run.


async def test_a_run_makes_a_request_and_uses_the_answer(
    tasks: FakeTasks, working: Working, egress: Egress, server: HttpServer
) -> None:
    server.answers["/items"] = said(201, b'{"id": 9007199254740993}', Content_Type="application/json")
    server.answers["/items/9007199254740993"] = said(200, b"made")
    request = {"url": server.url("/items"), "method": "POST", "json": {"n": "${params.n}"}}
    steps = [
        {"id": "make", "uses": "http.request", "with": request, "save_as": "made"},
        {"uses": "http.request", "with": {"url": "${steps.made.url}/${steps.made.json.id}"}, "save_as": "read"},
    ]
    async with working(egress=egress):
        run = await tasks.ended(await tasks.enqueue(*steps, params={"n": 3}))
    assert run.output["read"]["text"] == "made"
    assert [asked.body for asked in server.asked] == [b'{"n":3}', b""]
    assert server.asked[0].headers["idempotency-key"] == f"{run.id}:make"


async def test_the_step_says_how_long_the_request_may_take(
    tasks: FakeTasks, working: Working, egress: Egress, server: HttpServer
) -> None:
    server.answers["/"] = falls_silent_after(b"")
    step = {"uses": "http.request", "with": {"url": server.url("/")}, "timeout_seconds": 0.2}
    async with working(egress=egress):
        run = await tasks.ended(await tasks.enqueue(step))
    assert (run.error.message, run.error.retryable) == ("no answer within 0.2 s", True)


async def test_an_answer_that_is_more_than_may_be_kept_fails_the_step(
    tasks: FakeTasks, working: Working, egress: Egress, server: HttpServer
) -> None:
    server.answers["/"] = said(200, b"x" * MAX_BODY_BYTES)
    async with working(egress=egress):
        run = await tasks.ended(await tasks.enqueue({"uses": "http.request", "with": {"url": server.url("/")}}))
    assert run.error.message.startswith("output is ")
    assert run.error.retryable


async def test_a_worker_reaches_nothing_but_the_public_internet_by_default(
    tasks: FakeTasks, working: Working, server: HttpServer
) -> None:
    async with working():
        run = await tasks.ended(await tasks.enqueue({"uses": "http.request", "with": {"url": server.url("/")}}))
    assert (run.error.retryable, server.connections) == (False, 0)
    assert run.error.message.startswith("with.url is refused: only public addresses over https can be reached")
