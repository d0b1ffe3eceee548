"""Reads the body of an answer, never more of it than was asked for."""

import zlib
from contextlib import aclosing

import httpx2

from services.chassis.egress.errors import AnswerBroken

CODINGS = "gzip"
"""What `Accept-Encoding` says."""
_GZIP_NAMES = ("gzip", "x-gzip")
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
# A packed body may be this much longer than the unpacked one; without a limit it could go on and unpack to nothing.
_PACKED_EXTRA_BYTES = 64 * 1024


async def read(response: httpx2.Response, at_most: int) -> tuple[bytes, bool]:
    """The first `at_most` bytes of the body, unpacked, and whether that is all of it.

    Raises AnswerBroken when the body is packed in a way that was not asked for, or cannot be unpacked.
    """
    gunzip = _Gunzip() if _is_packed(response) else None
    body, received = bytearray(), 0
    async with aclosing(response.aiter_raw()) as pieces:
        async for piece in pieces:
            received += len(piece)
            body += gunzip.unpack(piece, at_most + 1 - len(body)) if gunzip else piece
            if len(body) > at_most or received > at_most + _PACKED_EXTRA_BYTES:
                return bytes(body[:at_most]), False
    if gunzip:
        gunzip.finish()
    return bytes(body), True


def _is_packed(response: httpx2.Response) -> bool:
    coding = response.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity", *_GZIP_NAMES):
        raise AnswerBroken("the body is packed in a way that was not asked for; gzip is understood")
    return coding in _GZIP_NAMES


class _Gunzip:
    """Unpacks one gzip member after the other."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._begun = False

    def unpack(self, packed: bytes, room: int) -> bytes:
        """At most `room` bytes; what is packed in the rest of `packed` is lost then."""
        unpacked = bytearray()
        try:
            while packed and len(unpacked) < room:
                if self._member.eof:
                    self._member = zlib.decompressobj(_GZIP_WINDOW)
                self._begun = True
                unpacked += self._member.decompress(packed, room - len(unpacked))
                packed = self._member.unused_data
        except zlib.error:
            raise AnswerBroken("the body is no valid gzip") from None
        return bytes(unpacked)

    def finish(self) -> None:
        if self._begun and not self._member.eof:
            raise AnswerBroken("the body ended in the middle of its gzip")
