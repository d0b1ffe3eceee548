"""Tool servers, and whether a pipeline's tools are there."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.pipeline.builtin import BUILTIN_TOOLS
from services.pipeline.errors import TemplateError
from services.pipeline.revealing import TEXT_RULE, read_text
from services.tasks.errors import ToolServerNameTaken, ToolServerNotFound
from services.tasks.models.tool import NewToolServer, Tool, ToolServer, ToolTransport
from services.tasks.store import tool as tool_store

_MAX_ADDRESS_LENGTH = 200
_STARTS_SERVERS = "runs:work"
_BUILTIN_SERVERS = frozenset(address.partition(".")[0] for address in BUILTIN_TOOLS)


def create_tool_server(connection: Connection, new: NewToolServer, clock: Clock) -> ToolServer:
    """Registers a tool server; answers it masked, for the answer is remembered by its idempotency key."""
    faults = _server_faults(new)
    if faults:
        raise InvalidArgument.of(faults)
    server = ToolServer(
        name=new.name,
        transport=new.transport,
        command=new.command,
        env=new.env,
        url=new.url,
        timeout_seconds=new.timeout_seconds,
        created_at=clock.now(),
    )
    if not tool_store.add_tool_server(connection, server):
        raise ToolServerNameTaken(new.name)
    return server.masked()


def list_tool_servers(
    connection: Connection, caller: Caller, *, limit: int, after_name: str | None
) -> list[ToolServer]:
    """Up to `limit` tool servers by name, behind `after_name`; masked unless the caller starts their processes.

    That is who was given `runs:work` by name, and has no role: an agent with one does its own work. To `admin`, who may
    do everything, no values are shown.
    """
    servers = tool_store.list_tool_servers(connection, limit=limit, after_name=after_name)
    is_worker = _STARTS_SERVERS in caller.scopes and not caller.role
    return servers if is_worker else [server.masked() for server in servers]


def report_tools(connection: Connection, server: str, offered: list[Tool], clock: Clock) -> None:
    """Replaces what is known of one server's tools."""
    faults = _offer_faults(server, [tool.address for tool in offered])
    if faults:
        raise InvalidArgument.of(faults)
    if not tool_store.replace_tools(connection, server, offered, clock.now()):
        raise ToolServerNotFound(server)


def list_tools(connection: Connection, *, limit: int, after_address: str | None) -> list[Tool]:
    """Built-in tools and those of the servers in one list by address."""
    builtin = [Tool(tool.address, tool.description, dict(tool.input_schema)) for tool in BUILTIN_TOOLS.values()]
    return tool_store.list_tools(connection, builtin, limit=limit, after_address=after_address)


def tool_faults(connection: Connection, used: Mapping[int, str]) -> list[Violation]:
    """The steps whose tool does not exist, of tools by the step's position.

    A server whose tools are not known yet may have any.
    """
    servers = tool_store.servers_known(connection, {address.partition(".")[0] for address in used.values()})
    addresses = tool_store.tools_known(connection, set(used.values()))
    faults = []
    for position, address in used.items():
        server = address.partition(".")[0]
        if address in BUILTIN_TOOLS or address in addresses:
            continue
        if server not in servers and server not in _BUILTIN_SERVERS:
            description = f"there is no tool server {server!r}: register it at POST /tool-servers"
        elif servers.get(server, True):
            description = f"tool server {server!r} has no such tool; it has {_names(connection, server)}"
        else:
            continue
        faults.append(Violation(f"payload.pipeline[{position}].uses", description))
    return faults


def _offer_faults(server: str, addresses: Sequence[str]) -> list[Violation]:
    faults = []
    for index, address in enumerate(addresses):
        if not address.startswith(f"{server}."):
            faults.append(Violation(f"tools[{index}].address", f"must begin with '{server}.'"))
        elif len(address) > _MAX_ADDRESS_LENGTH:
            faults.append(Violation(f"tools[{index}].address", f"is longer than {_MAX_ADDRESS_LENGTH} characters"))
        elif address in addresses[:index]:
            faults.append(Violation(f"tools[{index}].address", f"{address!r} is already in the list"))
    return faults


def _names(connection: Connection, server: str) -> str:
    builtin = [address for address in BUILTIN_TOOLS if address.startswith(f"{server}.")]
    return ", ".join(builtin or tool_store.tool_names(connection, server, limit=20)) or "none"


def _server_faults(new: NewToolServer) -> list[Violation]:
    if new.name in _BUILTIN_SERVERS:
        return [Violation("name", f"{new.name!r} is built in: choose another name")]
    return _stdio_faults(new) if new.transport is ToolTransport.STDIO else _http_faults(new)


def _stdio_faults(new: NewToolServer) -> list[Violation]:
    faults = []
    if not new.command:
        faults.append(Violation("command", "is required for transport stdio"))
    elif not PurePosixPath(new.command[0]).is_absolute():
        faults.append(Violation("command[0]", f"{new.command[0]!r} must be the executable's absolute path"))
    if new.url:
        faults.append(Violation("url", "must be empty for transport stdio"))
    return faults + _env_faults(new.env)


def _env_faults(env: Mapping[str, str]) -> list[Violation]:
    faults = []
    for name, text in env.items():
        try:
            read_text(text)
        except TemplateError:
            faults.append(Violation(f"env.{name}", TEXT_RULE))
    return faults


def _http_faults(new: NewToolServer) -> list[Violation]:
    faults = [
        Violation(field, "must be empty for transport http")
        for field, value in (("command", new.command), ("env", new.env))
        if value
    ]
    if not new.url:
        faults.append(Violation("url", "is required for transport http"))
    elif not _is_safe_url(new.url):
        # It may hold a password, so it is not repeated.
        description = "must be an https URL, or an http URL on a loopback address, without a user name or password"
        faults.append(Violation("url", description))
    return faults


def _is_safe_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # a port that is none raises, too
    except ValueError:
        return False
    if "@" in parts.netloc:
        return False
    if parts.scheme == "https":
        return bool(host)
    try:
        return parts.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False
