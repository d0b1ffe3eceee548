"""Entries of the audit."""

import orjson
from baton.sessions.v1 import audit_pb2
from baton.sessions.v1 import audit_service_pb2 as pb

from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.sessions.models.audit import AuditFilter, Entry, External, Fault, Head

_SAME = ("action", "resource", "context", "trace_id")
_TEXTS = ("context", "actor", "action", "resource", "before_digest", "after_digest", "note", "request_id", "trace_id")


def audit_filter(request: pb.ListAuditEntriesRequest | pb.ExportAuditEntriesRequest) -> AuditFilter:
    """Which entries the caller wants."""
    texts = {name: getattr(request, name) for name in _SAME}
    return AuditFilter(
        **texts,
        actor=request.actor.lower(),
        run_id=request.run_id.lower(),
        request_id=request.idempotency_key,
        since=from_timestamp(request.since) if request.HasField("since") else None,
        until=from_timestamp(request.until) if request.HasField("until") else None,
    )


def entry_message(entry: Entry) -> audit_pb2.AuditEntry:
    action = entry.action
    return audit_pb2.AuditEntry(
        sequence=entry.sequence,
        id=action.id,
        occurred_at=to_timestamp(action.occurred_at),
        recorded_at=to_timestamp(entry.recorded_at),
        before=to_struct(orjson.loads(action.before)) if action.before else None,
        after=to_struct(orjson.loads(action.after)) if action.after else None,
        run_id=action.run_id,
        hash=entry.hash,
        **{name: getattr(action, name) for name in _TEXTS},
    )


def fault_message(fault: Fault) -> pb.AuditFault:
    return pb.AuditFault(sequence=fault.sequence, description=fault.description)


def known_head(request: pb.VerifyAuditRequest) -> Head | None:
    """The place whose seal the caller knows, if there is one."""
    return Head(request.known_sequence, request.known_hash) if request.known_hash else None


def external(request: pb.IngestAuditRequest) -> External:
    """What happened elsewhere."""
    return External(
        source=request.source,
        category=request.category,
        action=request.action,
        subject=request.subject,
        trace_id=request.trace_id,
        content=request.content,
        metadata=from_struct(request.metadata),
    )
