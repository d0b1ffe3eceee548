"""The tools that servers offer, and whether a pipeline's steps fit them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.pipeline.builtin import BUILTIN_TOOLS
from services.pipeline.inputs import input_problems
from services.pipeline.schemas import Effort, Schema, SchemaNotUsable
from services.tasks.errors import ToolServerNotFound
from services.tasks.models.tool import Tool, ToolFilters
from services.tasks.operations.tool_server_faults import BUILTIN_SERVERS
from services.tasks.store import tool as tool_store
from services.tasks.store import tool_server as server_store
from services.tasks.store.tool_server import KnownServer

_MAX_ADDRESS_LENGTH = 200
# Schemas that are kept. Larger ones are rare, and would take much memory.
_CACHED = 512
_LONGEST_CACHED = 16 * 1024
# What reading a schema costs, at worst.
_BYTES_PER_STEP = 2


@dataclass(frozen=True)
class Use:
    """What a step says of its tool."""

    address: str
    given: Mapping[str, Any] | None
    """The input, with templates; None where it is none."""


def report_tools(connection: Connection, server: str, offered: list[Tool], error: str, clock: Clock) -> None:
    """Replaces what is known of one server's tools; or, with an error, keeps only why they are not known anew."""
    faults = list(_offer_faults(server, [tool.address for tool in offered]))
    if error and offered:
        faults.append(Violation("tools", "must be empty with an error"))
    if faults:
        raise InvalidArgument.of(faults)
    now = clock.now()
    if error:
        is_there = tool_store.note_error(connection, server, error, now)
    else:
        is_there = tool_store.replace_tools(connection, server, offered, now)
    if not is_there:
        raise ToolServerNotFound(server)


def list_tools(connection: Connection, filters: ToolFilters, *, limit: int, after_address: str | None) -> list[Tool]:
    """Built-in tools and those of the servers in one list by address."""
    builtin = [
        Tool(
            tool.address,
            tool.description,
            dict(tool.input_schema),
            dict(tool.output_schema),
            server=_server(tool.address),
            scopes=list(tool.scopes),
        )
        for tool in BUILTIN_TOOLS.values()
    ]
    return tool_store.list_tools(connection, builtin, filters, limit=limit, after_address=after_address)


def tool_faults(connection: Connection, used: Mapping[int, Use]) -> list[Violation]:
    """What is wrong with the tools of steps, by the step's position: there is none, or the input cannot fit it.

    A server whose tools are not known yet may have any.
    """
    servers = server_store.servers_known(connection, {_server(use.address) for use in used.values()})
    schemas = tool_store.tools_known(connection, {use.address for use in used.values()})
    schemas |= {tool.address: dict(tool.input_schema) for tool in BUILTIN_TOOLS.values()}
    faults: list[Violation] = []
    inputs = _Inputs(schemas)
    for position, use in used.items():
        path = f"payload.pipeline[{position}]"
        if why := _refusal(connection, use.address, servers, schemas):
            faults.append(Violation(f"{path}.uses", why))
        elif use.given is not None:
            faults += inputs.faults(use.address, use.given, f"{path}.with")
    return faults


def _refusal(
    connection: Connection, address: str, servers: Mapping[str, KnownServer], tools: Mapping[str, Any]
) -> str | None:
    """Why a tool cannot be used, None when it can."""
    name = _server(address)
    server = servers.get(name)
    if server is None and name not in BUILTIN_SERVERS:
        return f"there is no tool server {name!r}: register it at POST /tool-servers"
    if server is not None and not server.enabled:
        return f"tool server {name!r} is disabled: an operator enables it at PUT /tool-servers/{name}"
    if address not in tools and (server is None or server.tools_known):
        return f"tool server {name!r} has no such tool; it has {_names(connection, name)}"
    return None


class _Inputs:
    """Checks the inputs of one payload, of which all together are only so much work."""

    def __init__(self, schemas: Mapping[str, dict[str, Any]]) -> None:
        self._schemas = schemas
        self._usable: dict[str, Schema | None] = {}
        self._effort = Effort()

    def faults(self, address: str, given: Mapping[str, Any], field: str) -> Iterator[Violation]:
        """What is certainly wrong with an input of a tool; nothing where nobody knows what the tool takes."""
        if address not in self._usable:
            self._usable[address] = self._read(self._schemas.get(address))
        schema = self._usable[address]
        if schema is not None:
            for problem in input_problems(address, schema, given, field, self._effort):
                yield Violation(problem.field, problem.description)

    def _read(self, schema: dict[str, Any] | None) -> Schema | None:
        if schema is None:
            return None
        spelt = orjson.dumps(schema)
        try:
            self._effort.spend(len(spelt) // _BYTES_PER_STEP)
            return _cached(spelt) if len(spelt) <= _LONGEST_CACHED else Schema(schema)
        except SchemaNotUsable:
            return None


@lru_cache(_CACHED)
def _cached(spelt: bytes) -> Schema:
    return Schema(orjson.loads(spelt))


def _offer_faults(server: str, addresses: Sequence[str]) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, address in enumerate(addresses):
        if not address.startswith(f"{server}."):
            yield Violation(f"tools[{index}].address", f"must begin with '{server}.'")
        elif len(address) > _MAX_ADDRESS_LENGTH:
            yield Violation(f"tools[{index}].address", f"is longer than {_MAX_ADDRESS_LENGTH} characters")
        elif address in seen:
            yield Violation(f"tools[{index}].address", f"{address!r} is already in the list")
        seen.add(address)


def _names(connection: Connection, server: str) -> str:
    builtin = [address for address in BUILTIN_TOOLS if address.startswith(f"{server}.")]
    return ", ".join(builtin or tool_store.tool_names(connection, server, limit=20)) or "none"


def _server(address: str) -> str:
    return address.partition(".")[0]
