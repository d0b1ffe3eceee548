"""Conditions: what is asked, what workers are told and tell, and what was told."""

from datetime import timedelta
from typing import Any

from baton.tasks.v1 import condition_pb2, task_pb2
from baton.tasks.v1 import probe_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from services.chassis.ids import stored_id
from services.chassis.structs import from_struct, from_value, to_struct
from services.chassis.timestamps import to_timestamp
from services.tasks.convert.enums import to_enum
from services.tasks.models.condition import (
    DEFAULT_EVERY_SECONDS,
    Condition,
    Evaluation,
    LeasedProbe,
    ProbeLease,
    ProbeReport,
)


def condition(message: task_pb2.Condition) -> dict[str, Any]:
    """What a caller wants to be asked, as it is stored."""
    probe = message.probe
    timeout = probe.timeout_seconds if probe.HasField("timeout_seconds") else None
    every = message.every_seconds if message.HasField("every_seconds") else DEFAULT_EVERY_SECONDS
    return Condition.stored(probe.uses, from_struct(_with(probe)), timeout, every, message.cooldown_seconds)


def condition_message(stored: dict[str, Any] | None) -> task_pb2.Condition | None:
    """What is asked, as it is answered."""
    if stored is None:
        return None
    probe = stored["probe"]
    return task_pb2.Condition(
        probe=task_pb2.Probe(
            uses=probe["uses"],
            timeout_seconds=probe.get("timeout_seconds"),
            # `with` is a word of Python's.
            **{"with": to_struct(probe["with"])},
        ),
        every_seconds=stored["every_seconds"],
        cooldown_seconds=stored["cooldown_seconds"],
    )


def leased_message(leased: LeasedProbe) -> pb.LeasedProbe:
    """A probe as a worker gets it."""
    task, asked = leased.task, Condition.of(leased.task)
    return pb.LeasedProbe(
        lease=pb.ProbeLease(task_id=leased.lease.task_id, token=leased.lease.token),
        lasts=_duration(asked.lease),
        number=leased.number,
        leased_at=to_timestamp(leased.leased_at),
        task=task.title,
        uses=asked.uses,
        timeout_seconds=asked.timeout_seconds,
        params=to_struct(task.payload.get("params", {})),
        created_by=task.created_by,
        expression=task.schedule_expr,
        **{"with": to_struct(asked.with_)},
    )


def report(message: pb.ProbeReport) -> ProbeReport:
    """What a worker reports."""
    lease = ProbeLease(stored_id(message.lease.task_id), stored_id(message.lease.token))
    match message.WhichOneof("outcome"):
        case "evaluated":
            told = message.evaluated
            result = from_value(told.result) if told.holds else None
            return ProbeReport(lease, told.holds, result, told.excerpt, told.result_digest)
        case "failed":
            failed = message.failed
            return ProbeReport(lease, None, None, failed.excerpt, failed.result_digest, failed.error)
    return ProbeReport(lease, released=True)


def evaluation_message(evaluation: Evaluation) -> condition_pb2.Evaluation:
    """A look at a condition, as it is answered."""
    outcome = evaluation.outcome
    return condition_pb2.Evaluation(
        number=evaluation.number,
        evaluated_at=to_timestamp(evaluation.evaluated_at),
        holds=evaluation.holds,
        excerpt=evaluation.excerpt,
        result_digest=evaluation.result_digest,
        error=evaluation.error,
        outcome=None if outcome is None else to_enum(outcome, task_pb2.OccurrenceOutcome),
        run_id=evaluation.run_id or "",
    )


def _with(probe: task_pb2.Probe) -> Any:
    return getattr(probe, "with")


def _duration(length: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(length)
    return message
