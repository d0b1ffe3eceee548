"""google.protobuf.Timestamp and Duration as text."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.gateway.transcode.faults import Faults

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII
)
_LOOSE_TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)(.*))?", re.ASCII)
_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s", re.ASCII)
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799  # years 1 to 9999, all that a Timestamp holds
_LONGEST_DURATION = 315_576_000_000


@lru_cache(maxsize=4096)
def _minute(minutes: int) -> str:
    # Times that are printed together mostly lie close together, and this is the slow part of printing one.
    return (_EPOCH + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M").rjust(16, "0")


def print_timestamp(message: Timestamp) -> str:
    """RFC 3339 in UTC, always with six digits of a second: `2026-01-02T03:04:05.000000Z`."""
    seconds = message.seconds
    return f"{_minute(seconds // 60)}:{seconds % 60:02d}.{message.nanos // 1000:06d}Z"


def read_timestamp(message: Timestamp, value: object) -> None:
    """Takes RFC 3339 with any offset and up to nine digits of a second."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    seconds = _seconds(match) if match else None
    if match is None or seconds is None or not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise Faults.of("must be an RFC 3339 time with an offset, such as 2026-01-02T03:04:05Z")
    message.seconds = seconds
    message.nanos = int((match[3] or "0").ljust(9, "0"))


def read_query_timestamp(message: Timestamp, value: object) -> None:
    """Takes also what people and earlier clients write in a query: no offset is UTC, a blank for the `T`, a date
    alone is its midnight."""
    match = _LOOSE_TIME.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        value = f"{match[1]}T{match[2] or '00:00:00'}{match[3] or 'Z'}"
    read_timestamp(message, value)


def _seconds(match: re.Match[str]) -> int | None:
    try:
        local = datetime.fromisoformat(f"{match[1]}T{match[2]}+00:00")
    except ValueError:
        return None
    offset = int(match[5] or 0) * 3600 + int(match[6] or 0) * 60
    since_epoch = local - _EPOCH
    return since_epoch.days * 86_400 + since_epoch.seconds - (-offset if match[4] == "-" else offset)


def print_duration(message: Duration) -> str:
    """Seconds and no more digits than are needed: `90s`, `1.5s`, `-0.25s`."""
    nanos = message.seconds * 1_000_000_000 + message.nanos
    whole, fraction = divmod(abs(nanos), 1_000_000_000)
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{'-' if nanos < 0 else ''}{whole}{digits}s"


def read_duration(message: Duration, value: object) -> None:
    """Takes seconds with up to nine digits after the point and an `s`."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[2]) > _LONGEST_DURATION:
        raise Faults.of("must be a number of seconds with an s, such as 1.5s")
    sign = -1 if match[1] else 1
    message.seconds = sign * int(match[2])
    message.nanos = sign * int((match[3] or "0").ljust(9, "0"))
