"""What the tool servers offer."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Connection,
    Integer,
    Row,
    Select,
    String,
    Text,
    delete,
    insert,
    literal,
    or_,
    select,
    union_all,
    update,
)

from services.chassis.columns import Json
from services.tasks.models.tool import Tool, ToolFilters
from services.tasks.store import matching
from services.tasks.store.tables import tool_servers, tools

_STORED = ("address", "description", "input_schema", "output_schema")


def replace_tools(connection: Connection, server: str, offered: Sequence[Tool], now: datetime) -> bool:
    """Replaces what is known of one server's tools; answers whether there is such a server."""
    known = {"tools_known_at": now, "last_error": "", "last_error_at": None}
    changed = connection.execute(update(tool_servers).where(tool_servers.c.name == server).values(known))
    if changed.rowcount == 0:
        return False
    forget_tools(connection, server)
    if offered:
        rows = [{name: getattr(tool, name) for name in _STORED} | {"server": server} for tool in offered]
        connection.execute(insert(tools), rows)
    return True


def forget_tools(connection: Connection, server: str) -> None:
    """Deletes what is known of one server's tools."""
    connection.execute(delete(tools).where(tools.c.server == server))


def note_error(connection: Connection, server: str, error: str, now: datetime) -> bool:
    """Keeps why a server's tools are not known; answers whether there is such a server."""
    said = {"last_error": error, "last_error_at": now}
    return connection.execute(update(tool_servers).where(tool_servers.c.name == server).values(said)).rowcount > 0


def list_tools(
    connection: Connection, builtin: Sequence[Tool], filters: ToolFilters, *, limit: int, after_address: str | None
) -> list[Tool]:
    """Up to `limit` tools by address, behind `after_address`: the servers' and these.

    The database merges them, because its order of texts is its own.
    """
    offered = union_all(_offered(), *map(_row, builtin)).subquery()
    query = select(offered).order_by(offered.c.address).limit(limit)
    if after_address is not None:
        query = query.where(offered.c.address > after_address)
    if filters.server:
        query = query.where(offered.c.server == filters.server)
    if filters.text:
        in_texts = (matching.contains(offered.c[name], filters.text) for name in ("address", "description"))
        query = query.where(or_(*in_texts))
    return [_tool(row) for row in connection.execute(query)]


def tools_known(connection: Connection, addresses: Collection[str]) -> dict[str, dict[str, Any]]:
    """The input schemas of those of the tools that exist."""
    query = select(tools.c.address, tools.c.input_schema).where(tools.c.address.in_(list(addresses)))
    return {row.address: row.input_schema for row in connection.execute(query)}


def tool_names(connection: Connection, server: str, limit: int) -> list[str]:
    """Some tools of a server, for an error message that helps."""
    query = select(tools.c.address).where(tools.c.server == server).order_by(tools.c.address).limit(limit)
    return list(connection.execute(query).scalars())


def _offered() -> Select[Any]:
    of_server = (tool_servers.c[name] for name in ("scopes", "timeout_seconds", "enabled"))
    return select(*(tools.c[name] for name in _STORED), tools.c.server, *of_server).join(tool_servers)


def _row(tool: Tool) -> Select[Any]:
    """A tool that is in no table, as if it were."""
    return select(
        literal(tool.address, String),
        literal(tool.description, Text),
        literal(tool.input_schema, Json),
        literal(tool.output_schema, Json),
        literal(tool.server, String),
        literal(tool.scopes, Json),
        literal(tool.timeout_seconds, Integer),
        literal(tool.enabled, Boolean),
    )


def _tool(row: Row[Any]) -> Tool:
    return Tool(**row._asdict())
