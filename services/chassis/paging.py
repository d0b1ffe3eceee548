"""Keyset paging: cursors that nobody can forge and that fit only the list they were given out for."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import orjson
from google.protobuf.message import Message

from services.chassis.config import ConfigurationError
from services.chassis.errors import InvalidArgument, Violation

_R = TypeVar("_R")
_M = TypeVar("_M", bound=Message)
DEFAULT_LIMIT = 50
MAX_PAGE_BYTES = 4 * 1024 * 1024
_TAG_BYTES = 16
_KEY_BYTES = 16


class Cursors:
    """Writes and reads cursors: base64url of an HMAC-SHA256 tag (16 bytes) and the position as JSON.

    The tag covers the request's type and filters, so a cursor is refused under others. All replicas of a
    service must share `key`.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> "Cursors":
        """With the key in `path`. Raises ConfigurationError when it is too short to be a secret."""
        key = path.read_bytes()
        if len(key) < _KEY_BYTES:
            raise ConfigurationError(f"{path} holds {len(key)} bytes: a cursor key has at least {_KEY_BYTES}")
        return cls(key)

    def encode(self, request: Message, position: Sequence[str | int]) -> str:
        """The cursor of the page that follows `position` in the list that `request` asks for."""
        body = orjson.dumps(list(position))
        return base64.urlsafe_b64encode(self._tag(request, body) + body).decode().rstrip("=")

    def decode(self, request: Message) -> list[str | int] | None:
        """The position in `request.cursor`, None on the first page. Raises InvalidArgument `CURSOR_INVALID`."""
        cursor: str = request.cursor  # type: ignore[attr-defined]
        if not cursor:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        tag, body = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(request, body)):
            description = "is not a cursor of this list with these filters: start again without it"
            raise InvalidArgument(
                f"cursor: {description}", reason="CURSOR_INVALID", violations=[Violation("cursor", description)]
            )
        position: list[str | int] = orjson.loads(body)
        return position

    def page(
        self,
        request: Message,
        rows: Sequence[_R],
        to_message: Callable[[_R], _M],
        position: Callable[[_R], str | int],
    ) -> tuple[list[_M], str | None]:
        """One page out of up to `limit + 1` fetched rows: its messages, and the next page's cursor if there is one.

        A page ends early, but never empty, before it outgrows MAX_PAGE_BYTES: a list of large things must not pass
        what one answer may hold.
        """
        messages: list[_M] = []
        size = 0
        for row in rows[: page_limit(request)]:
            message = to_message(row)
            size += message.ByteSize()
            if messages and size > MAX_PAGE_BYTES:
                break
            messages.append(message)
        if len(messages) == len(rows):
            return messages, None
        return messages, self.encode(request, [position(rows[len(messages) - 1])])

    def _tag(self, request: Message, body: bytes) -> bytes:
        filters = type(request)()
        filters.CopyFrom(request)
        for paging_field in ("limit", "cursor"):
            filters.ClearField(paging_field)
        signed = b"\x00".join(
            [request.DESCRIPTOR.full_name.encode(), filters.SerializeToString(deterministic=True), body]
        )
        return hmac.digest(self._key, signed, hashlib.sha256)[:_TAG_BYTES]


def page_limit(request: Message) -> int:
    """How many items the page may hold: the request's `limit`, or DEFAULT_LIMIT."""
    limit: int = request.limit if request.HasField("limit") else DEFAULT_LIMIT  # type: ignore[attr-defined]
    return limit
