"""Instants as protobuf has them."""

from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis.clock import EPOCH


def to_timestamp(instant: datetime | None) -> Timestamp | None:
    """A message field that takes None stays absent."""
    if instant is None:
        return None
    since = instant - EPOCH
    return Timestamp(seconds=since.days * 86400 + since.seconds, nanos=since.microseconds * 1000)


def from_timestamp(timestamp: Timestamp) -> datetime:
    """An aware instant in UTC; microseconds, what is finer is cut."""
    return EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)
