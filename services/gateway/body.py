"""The body of a request: JSON, not compressed, of a bounded size, read no further than that."""

import asyncio
from collections.abc import Mapping

import orjson
from starlette.requests import Request

from services.chassis.errors import InvalidArgument, Violation
from services.gateway.json_text import read_text
from services.gateway.problems import BodyTooLarge, BodyTooSlow, MediaTypeUnsupported
from services.gateway.transcode.faults import Faults

MAX_BODY_BYTES = 1024 * 1024
# For all of it: who sends a byte now and then is not waited for any longer than who sends none.
BODY_SECONDS = 30.0
_JSON = "application/json"
_CHARSETS = frozenset({"", "utf-8", "utf8"})


async def read_json(request: Request, place: str) -> object:
    """The body as JSON; an empty one stands for `{}`. `place` is the field that it fills, empty for the whole request.

    Raises BodyTooLarge beyond MAX_BODY_BYTES, MediaTypeUnsupported, InvalidArgument: `BODY_NOT_JSON`, or naming a key
    that is given more than once.
    """
    data = await read_bytes(request)
    return parse_json(data, request.headers, place) if data else {}


def parse_json(data: bytes, headers: Mapping[str, str], place: str = "") -> object:
    """A body that was read, as JSON. Raises as `read_json` does."""
    _check_media_type(headers)
    try:
        return read_text(data)
    except Faults as wrong:
        raise InvalidArgument.of(Violation(*fault) for fault in wrong.at(place)) from None
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(
            f"the body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            reason="BODY_NOT_JSON",
        ) from None


async def refuse_body(request: Request) -> None:
    """Raises InvalidArgument `BODY_UNEXPECTED` when there is a body and the method takes none.

    `{}` says nothing: many clients send it with every POST.
    """
    if (await read_bytes(request)).strip() not in (b"", b"{}"):
        raise InvalidArgument("this request takes no body", reason="BODY_UNEXPECTED")


async def read_bytes(request: Request) -> bytes:
    """The body as it was sent.

    Raises BodyTooLarge beyond MAX_BODY_BYTES, BodyTooSlow after BODY_SECONDS, and MediaTypeUnsupported.
    """
    declared = request.headers.get("content-length")
    if declared is None and "transfer-encoding" not in request.headers:
        # Nothing follows the head (RFC 9112, 6.3), so that nothing has to be waited for. It is read all the same: that
        # the client leaves is heard behind it, and by nobody if somebody has begun to read and was called off.
        return await _whole(request)
    if declared is not None and declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    _check_encoding(request.headers)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _whole(request)
    except TimeoutError:
        raise BodyTooSlow(f"the body did not arrive within {BODY_SECONDS:g} seconds") from None


async def _whole(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")


def _check_encoding(headers: Mapping[str, str]) -> None:
    # A compressed body could be a thousand times larger than it looks.
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise MediaTypeUnsupported("compressed bodies are not accepted: send it without content-encoding")


def _check_media_type(headers: Mapping[str, str]) -> None:
    media_type, _, parameters = headers.get("content-type", "").lower().partition(";")
    charset = parameters.partition("charset=")[2].strip().strip('"')
    if media_type.strip() != _JSON or charset not in _CHARSETS:
        raise MediaTypeUnsupported(f"the body must be JSON in UTF-8: send it with content-type: {_JSON}")
