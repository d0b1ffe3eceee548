"""The built-in tool `http.request`: one request to wherever the pipeline says."""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from services.chassis import retry_after
from services.chassis.egress.client import Answer, Egress
from services.chassis.egress.errors import (
    AddressRefused,
    AnswerBroken,
    EgressFailed,
    TimedOut,
    TooManyRedirects,
)
from services.pipeline.templates import member
from services.worker.failures import InputNotValid, RequestRejected, StepFailed, ToolFailed, ToolTimedOut
from services.worker.tools import results
from services.worker.tools.use import Use

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Bytes of a body that are read; how much of it can be kept is judged like any other output."""
_EXCERPT_CHARACTERS = 500
# So much is read of what an excerpt is made of: secrets are taken out of it before it is cut.
_EXCERPT_BYTES = 8192
_BODILESS = ("GET", "HEAD")
_CHANGING = ("POST", "PUT", "PATCH", "DELETE")
_PASSING = (408, 429)  # and all from 500 on
_ASKS_FOR_TIME = (429, 503)
# They belong to the connection, which is ours.
_OUR_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "host", "http2-settings", "keep-alive"}
    | {"proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")
_NOT_PASSED_ON = ("set-cookie", "set-cookie2")
_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s;"']+)""", re.IGNORECASE)
# Only these, for some of Python's decoders take very long on purpose-made text.
_DECODERS = {"iso-8859-1": "latin-1", "latin1": "latin-1", "windows-1252": "cp1252"}


class HttpRequest:
    """Makes requests through an egress that refuses what must not be reached."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def __call__(self, arguments: dict[str, Any], use: Use) -> Any:
        """The answer as `services.pipeline.builtin` says, when its status is an expected one.

        Raises InputNotValid, RequestRejected, ToolFailed and ToolTimedOut.
        """
        method = arguments.get("method", "GET")
        with _as_step_failures():
            async with self._egress.request(
                method,
                _url(arguments),
                headers=_headers(arguments, method, use.key),
                body=_body(arguments, method),
                timeout=use.timeout,
                follow_redirects=arguments.get("follow_redirects", False),
            ) as answer:
                if not _is_expected(answer.status, arguments.get("expect_status")):
                    raise await _failure(answer, use.clean)
                return _output(answer, await answer.read(MAX_BODY_BYTES))


@contextmanager
def _as_step_failures() -> Iterator[None]:
    try:
        yield
    except AddressRefused as refusal:
        raise InputNotValid(f"with.url {refusal}") from None
    except TimedOut as failure:
        raise ToolTimedOut(str(failure)) from None
    except TooManyRedirects as failure:
        raise RequestRejected(str(failure)) from None
    except EgressFailed as failure:
        raise ToolFailed(str(failure)) from None


def _url(arguments: Mapping[str, Any]) -> str:
    """The URL with what `query` adds to its query."""
    url: str = arguments["url"]
    pairs = [
        (name, _query_text(item))
        for name, value in arguments.get("query", {}).items()
        for item in (value if isinstance(value, list) else [value])
    ]
    if not pairs:
        return url
    before, hash_sign, fragment = url.partition("#")
    joint = "&" if "?" in before else "?"
    return f"{before}{joint}{urlencode(pairs, quote_via=quote, safe='')}{hash_sign}{fragment}"


def _query_text(value: str | float | bool) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _headers(arguments: Mapping[str, Any], method: str, key: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in arguments.get("headers", {}).items():
        _check_header(name, value)
        if name.lower() in headers:
            raise InputNotValid(f"{member('with.headers', name)}: is given twice, in upper and in lower case")
        headers[name.lower()] = value
    if "json" in arguments:
        headers.setdefault("content-type", "application/json")
    elif "text" in arguments:
        headers.setdefault("content-type", "text/plain; charset=utf-8")
    if method in _CHANGING:
        headers.setdefault("idempotency-key", key)
    return headers


def _check_header(name: str, value: str) -> None:
    field = member("with.headers", name)
    if not _HEADER_NAME.fullmatch(name):
        raise InputNotValid(f"{field}: is no name of a header: use letters, digits and dashes")
    if name.lower() in _OUR_HEADERS:
        raise InputNotValid(f"{field}: is set by Baton itself: leave it out")
    if not _HEADER_VALUE.fullmatch(value):
        raise InputNotValid(f"{field}: must be printable ASCII without spaces around it")


def _body(arguments: Mapping[str, Any], method: str) -> bytes | None:
    given = [name for name in ("json", "text") if name in arguments]
    if len(given) == 2:
        raise InputNotValid("with.text: give either json or text, not both")
    if not given:
        return None
    if method in _BODILESS:
        raise InputNotValid(f"with.{given[0]}: a {method} has no body: use POST, PUT, PATCH or DELETE")
    return orjson.dumps(arguments["json"]) if "json" in arguments else arguments["text"].encode()


def _is_expected(status: int, expected: list[int] | None) -> bool:
    return 200 <= status < 300 if expected is None else status in expected


async def _failure(answer: Answer, clean: Callable[[str], str]) -> StepFailed:
    """What it means that the answer has another status than expected; the server's words are added."""
    status = answer.status
    message = f"{answer.url.host} answered {status}{await _excerpt(answer, clean)}"
    if status in _ASKS_FOR_TIME:
        return ToolFailed(message, retry_after=retry_after.from_headers(answer.headers, datetime.now(UTC)))
    if status >= 500 or status in _PASSING:
        return ToolFailed(message)
    return RequestRejected(message)


async def _excerpt(answer: Answer, clean: Callable[[str], str]) -> str:
    try:
        beginning = await answer.read_beginning(_EXCERPT_BYTES)
    except AnswerBroken:
        return ""
    text = "".join(char if char.isprintable() else " " for char in clean(beginning.decode(errors="replace")))
    words = " ".join(text.split())[:_EXCERPT_CHARACTERS]
    return f": {words}" if words else ""


def _output(answer: Answer, body: bytes) -> dict[str, Any]:
    headers = {name: value for name, value in answer.headers.items() if name not in _NOT_PASSED_ON}
    content_type = answer.headers.get("content-type", "")
    return {"status": answer.status, "headers": headers, "url": str(answer.url), **_content(body, content_type)}


def _content(body: bytes, content_type: str) -> dict[str, Any]:
    """The body under the name that says what it is: `json`, `text` or `base64`."""
    text = _text(body, content_type)
    if text is None:
        return {"base64": base64.b64encode(body).decode()}
    if _is_json(content_type):
        try:
            return {"json": results.parse(text)}
        except ValueError:
            pass  # it only says so
    return {"text": text}


def _text(body: bytes, content_type: str) -> str | None:
    """The body as text; None when it is none, or none that can be kept."""
    charset = _CHARSET.search(content_type)
    decoder = _DECODERS.get(charset[1].lower() if charset else "", "utf-8-sig")
    try:
        text = body.decode(decoder)
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("application/json", "text/json") or media_type.endswith("+json")
