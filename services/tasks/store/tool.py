"""Tool servers and what they offer."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, String, Text, delete, insert, literal, select, union_all, update

from services.chassis.columns import Json
from services.chassis.upsert import upsert
from services.tasks.models.tool import Tool, ToolServer, ToolTransport
from services.tasks.store.tables import tool_servers, tools


def add_tool_server(connection: Connection, server: ToolServer) -> bool:
    """Stores a tool server unless its name is taken; answers whether it did."""
    row = upsert(connection, tool_servers).values(asdict(server)).on_conflict_do_nothing()
    return connection.execute(row.returning(tool_servers.c.name)).first() is not None


def list_tool_servers(connection: Connection, *, limit: int, after_name: str | None) -> list[ToolServer]:
    """Up to `limit` tool servers by name, behind `after_name`."""
    query = select(tool_servers).order_by(tool_servers.c.name).limit(limit)
    if after_name is not None:
        query = query.where(tool_servers.c.name > after_name)
    return [_tool_server(row) for row in connection.execute(query)]


def replace_tools(connection: Connection, server: str, offered: Sequence[Tool], now: datetime) -> bool:
    """Replaces what is known of one server's tools; answers whether there is such a server."""
    known = connection.execute(update(tool_servers).where(tool_servers.c.name == server).values(tools_known_at=now))
    if known.rowcount == 0:
        return False
    connection.execute(delete(tools).where(tools.c.server == server))
    if offered:
        connection.execute(insert(tools), [asdict(tool) | {"server": server} for tool in offered])
    return True


def list_tools(connection: Connection, builtin: Sequence[Tool], *, limit: int, after_address: str | None) -> list[Tool]:
    """Up to `limit` tools by address, behind `after_address`: the servers' and these.

    The database merges them, because its order of texts is its own.
    """
    sides = [select(tools.c.address, tools.c.description, tools.c.input_schema)]
    sides += [
        select(literal(tool.address, String), literal(tool.description, Text), literal(tool.input_schema, Json))
        for tool in builtin
    ]
    offered = union_all(*sides).subquery()
    query = select(offered).order_by(offered.c.address).limit(limit)
    if after_address is not None:
        query = query.where(offered.c.address > after_address)
    return [Tool(*row) for row in connection.execute(query)]


def servers_known(connection: Connection, names: Collection[str]) -> dict[str, bool]:
    """Those of the tool servers that exist, and whether their tools are known."""
    query = select(tool_servers.c.name, tool_servers.c.tools_known_at).where(tool_servers.c.name.in_(list(names)))
    return {row.name: row.tools_known_at is not None for row in connection.execute(query)}


def tools_known(connection: Connection, addresses: Collection[str]) -> set[str]:
    """Those of the tools that exist."""
    query = select(tools.c.address).where(tools.c.address.in_(list(addresses)))
    return set(connection.execute(query).scalars())


def tool_names(connection: Connection, server: str, limit: int) -> list[str]:
    """Some tools of a server, for an error message that helps."""
    query = select(tools.c.address).where(tools.c.server == server).order_by(tools.c.address).limit(limit)
    return list(connection.execute(query).scalars())


def _tool_server(row: Row[Any]) -> ToolServer:
    return ToolServer(
        name=row.name,
        transport=ToolTransport(row.transport),
        command=row.command,
        env=row.env,
        url=row.url,
        timeout_seconds=row.timeout_seconds,
        created_at=row.created_at,
    )
