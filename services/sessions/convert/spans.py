"""The span of time that a list is about."""

from datetime import datetime
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis.timestamps import from_timestamp


class Spanned(Protocol):
    """A request with `since` and `until`."""

    @property
    def since(self) -> Timestamp: ...
    @property
    def until(self) -> Timestamp: ...


def since_of(request: Spanned) -> datetime | None:
    """The first instant that counts; None for no such bound."""
    return from_timestamp(request.since) if request.HasField("since") else None  # type: ignore[attr-defined]


def until_of(request: Spanned) -> datetime | None:
    """The first instant that does not count any more; None for no such bound."""
    return from_timestamp(request.until) if request.HasField("until") else None  # type: ignore[attr-defined]
