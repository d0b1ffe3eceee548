"""Occurrences, and the times at which a schedule will fire."""

from datetime import datetime, timedelta

from baton.tasks.v1 import task_pb2

from services.chassis.clock import EPOCH
from services.chassis.timestamps import to_timestamp
from services.tasks.convert.enums import from_enum, to_enum
from services.tasks.models.occurrence import Occurrence, Outcome
from services.tasks.models.schedule import FireTime

_MICROSECOND = timedelta(microseconds=1)


def outcome(number: task_pb2.OccurrenceOutcome.ValueType) -> Outcome:
    return from_enum(Outcome, task_pb2.OccurrenceOutcome, number)


def to_position(occurrence: Occurrence) -> int:
    """Where an occurrence stands in the list of its task, for a cursor."""
    return (occurrence.scheduled_for - EPOCH) // _MICROSECOND


def from_position(position: int) -> datetime:
    """The nominal time that stands there."""
    return EPOCH + position * _MICROSECOND


def occurrence_message(occurrence: Occurrence) -> task_pb2.Occurrence:
    """What became of a nominal time, as it is answered."""
    return task_pb2.Occurrence(
        scheduled_for=to_timestamp(occurrence.scheduled_for),
        through=to_timestamp(occurrence.through),
        outcome=to_enum(occurrence.outcome, task_pb2.OccurrenceOutcome),
        reason=occurrence.reason,
        run_id=occurrence.run_id or "",
        decided_at=to_timestamp(occurrence.decided_at),
    )


def fire_time_message(time: FireTime) -> task_pb2.FireTime:
    """A time to come, as it is answered."""
    return task_pb2.FireTime(at=to_timestamp(time.at), local=time.local, offset=time.offset, note=time.note)
