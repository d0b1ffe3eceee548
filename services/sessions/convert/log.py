"""Entries of agents' logs, and lines of the system log."""

from collections.abc import Mapping
from typing import Any

from baton.sessions.v1 import log_pb2
from baton.sessions.v1 import log_service_pb2 as pb
from google.protobuf.struct_pb2 import Struct

from services.chassis.ids import stored_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.sessions.convert.enums import from_enum, to_enum
from services.sessions.convert.spans import since_of, until_of
from services.sessions.models.log import (
    AgentBatch,
    AgentLog,
    AgentLogFilter,
    EventCategory,
    LogLevel,
    NewAgentLog,
    NewSystemLog,
    SystemBatch,
    SystemLog,
    SystemLogFilter,
    Tail,
)


def agent_batch(request: pb.AppendAgentLogsRequest) -> AgentBatch:
    """What is to be added to an agent's log."""
    return AgentBatch(stored_id(request.agent_id), [_new_agent_log(entry) for entry in request.entries])


def system_batch(request: pb.AppendSystemLogsRequest, writer_id: str) -> SystemBatch:
    """What is to be added to the system log."""
    return SystemBatch(writer_id, [_new_system_log(entry) for entry in request.entries])


def agent_log_filter(request: pb.ListAgentLogsRequest) -> AgentLogFilter:
    """Which entries the caller wants to see."""
    category = request.event_category
    return AgentLogFilter(
        agent_id=stored_id(request.agent_id),
        task_slug=request.task_slug,
        event_category=from_enum(EventCategory, log_pb2.EventCategory, category) if category else None,
        event_types=tuple(request.event_type),
        session_id=request.session_id,
        workflow_id=stored_id(request.workflow_id),
        since=since_of(request),
        until=until_of(request),
    )


def system_log_filter(request: pb.ListSystemLogsRequest) -> SystemLogFilter:
    """Which lines the caller wants to see."""
    return SystemLogFilter(
        levels=tuple(from_enum(LogLevel, log_pb2.LogLevel, level) for level in request.level),
        message_contains=request.message_contains,
        agent_id=stored_id(request.agent_id),
        workflow_id=stored_id(request.workflow_id),
        since=since_of(request),
        until=until_of(request),
    )


def agent_log_message(entry: AgentLog) -> log_pb2.AgentLog:
    """An entry as it is answered."""
    return log_pb2.AgentLog(
        id=entry.id,
        position=entry.position,
        agent_id=entry.agent_id,
        session_id=entry.session_id,
        task_slug=entry.task_slug,
        entry_index=entry.entry_index,
        event_category=to_enum(entry.event_category, log_pb2.EventCategory),
        event_type=entry.event_type,
        content=entry.content,
        payload=free_message(entry.payload),
        summary=entry.summary,
        workflow_id=entry.workflow_id or "",
        workflow_step=entry.workflow_step,
        timestamp=to_timestamp(entry.timestamp),
        recorded_at=to_timestamp(entry.recorded_at),
    )


def system_log_message(line: SystemLog) -> log_pb2.SystemLog:
    """A line as it is answered."""
    return log_pb2.SystemLog(
        id=line.id,
        position=line.position,
        agent_id=line.agent_id,
        level=to_enum(line.level, log_pb2.LogLevel),
        message=line.message,
        file_path=line.file_path,
        summary=line.summary,
        metadata=free_message(line.metadata),
        workflow_id=line.workflow_id or "",
        workflow_step=line.workflow_step,
        timestamp=to_timestamp(line.timestamp),
        recorded_at=to_timestamp(line.recorded_at),
    )


def tail_message(tail: Tail) -> pb.TailAgentLogsResponse:
    return pb.TailAgentLogsResponse(
        items=[agent_log_message(entry) for entry in tail.entries],
        task_slug=tail.task_slug,
        next_index=tail.next_index,
    )


def free_message(value: Mapping[str, Any] | None) -> Struct | None:
    """Free JSON as it is answered; absent for none."""
    return None if value is None else to_struct(value)


def _new_agent_log(entry: pb.NewAgentLog) -> NewAgentLog:
    return NewAgentLog(
        task_slug=entry.task_slug,
        session_id=entry.session_id,
        event_category=from_enum(EventCategory, log_pb2.EventCategory, entry.event_category),
        event_type=entry.event_type,
        content=entry.content,
        payload=from_struct(entry.payload) if entry.HasField("payload") else None,
        summary=entry.summary,
        workflow_id=stored_id(entry.workflow_id) or None,
        workflow_step=entry.workflow_step,
        timestamp=from_timestamp(entry.timestamp) if entry.HasField("timestamp") else None,
    )


def _new_system_log(entry: pb.NewSystemLog) -> NewSystemLog:
    return NewSystemLog(
        level=from_enum(LogLevel, log_pb2.LogLevel, entry.level),
        message=entry.message,
        file_path=entry.file_path,
        summary=entry.summary,
        metadata=from_struct(entry.metadata) if entry.HasField("metadata") else None,
        workflow_id=stored_id(entry.workflow_id) or None,
        workflow_step=entry.workflow_step,
        timestamp=from_timestamp(entry.timestamp) if entry.HasField("timestamp") else None,
    )
