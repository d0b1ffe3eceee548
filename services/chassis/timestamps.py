"""Instants as protobuf has them."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp


def to_timestamp(instant: datetime | None) -> Timestamp | None:
    """A message field that takes None stays absent."""
    if instant is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(instant)
    return timestamp


def from_timestamp(timestamp: Timestamp) -> datetime:
    """An aware instant in UTC; microseconds, what is finer is cut."""
    return timestamp.ToDatetime(tzinfo=UTC)
