"""Tool servers."""

from typing import Any

from baton.tasks.v1 import tool_pb2, tool_service_pb2

from services.chassis import validation
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.structs import from_list, from_struct
from services.chassis.timestamps import to_timestamp
from services.tasks.convert.enums import from_enum, to_enum
from services.tasks.models.tool import DEFAULT_TIMEOUT_SECONDS
from services.tasks.models.tool_server import NewToolServer, ToolServer, ToolTransport

_SAME_IN_BOTH = ("url", "timeout_seconds", "description", "enabled")


def new_tool_server(request: tool_service_pb2.CreateToolServerRequest) -> NewToolServer:
    """What the caller wants to register."""
    return NewToolServer(
        name=request.name,
        transport=from_enum(ToolTransport, tool_pb2.ToolTransport, request.transport),
        command=list(request.command),
        env=dict(request.env),
        url=request.url,
        timeout_seconds=request.timeout_seconds if request.HasField("timeout_seconds") else DEFAULT_TIMEOUT_SECONDS,
        description=request.description,
        enabled=request.enabled if request.HasField("enabled") else True,
        scopes=list(request.scopes),
    )


def tool_server_changes(request: tool_service_pb2.UpdateToolServerRequest) -> dict[str, Any]:
    """What the caller gives of a server, by the names of the model's fields.

    Raises InvalidArgument for what could not be given to a new one either.
    """
    given = {descriptor.name for descriptor, _ in request.ListFields()}
    changes = {name: getattr(request, name) for name in _SAME_IN_BOTH if name in given}
    if "transport" in given:
        changes["transport"] = from_enum(ToolTransport, tool_pb2.ToolTransport, request.transport)
    collections: dict[str, Any] = {
        name: from_list(getattr(request, name)) for name in ("command", "scopes") if name in given
    }
    if "env" in given:
        collections["env"] = from_struct(request.env)
    _require_strings(collections)
    # These have no limits of their own in this request, only in that of a new server.
    validation.check(
        tool_service_pb2.CreateToolServerRequest(name="any", transport=tool_pb2.TOOL_TRANSPORT_STDIO, **collections)
    )
    return changes | collections


def tool_server_message(server: ToolServer) -> tool_pb2.ToolServer:
    """A tool server as it is answered."""
    return tool_pb2.ToolServer(
        name=server.name,
        transport=to_enum(server.transport, tool_pb2.ToolTransport),
        command=server.command,
        env=server.env,
        url=server.url,
        timeout_seconds=server.timeout_seconds,
        created_at=to_timestamp(server.created_at),
        description=server.description,
        enabled=server.enabled,
        scopes=server.scopes,
        managed_by=to_enum(server.managed_by, tool_pb2.ToolServerManager),
        status=tool_pb2.ToolServerStatus(
            tools_known_at=to_timestamp(server.tools_known_at),
            last_error=server.last_error,
            last_error_at=to_timestamp(server.last_error_at),
        ),
    )


def _require_strings(collections: dict[str, Any]) -> None:
    faults = []
    for name, values in collections.items():
        places = values.items() if isinstance(values, dict) else enumerate(values)
        for place, value in places:
            if not isinstance(value, str):
                field = f"{name}.{place}" if isinstance(values, dict) else f"{name}[{place}]"
                faults.append(Violation(field, "must be a string"))
    if faults:
        raise InvalidArgument.of(faults)
