"""Tool servers."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, String, bindparam, delete, select, text, update

from services.chassis.upsert import upsert
from services.tasks.models.task import TaskStatus
from services.tasks.models.tool_server import ToolServer, ToolServerManager, ToolTransport
from services.tasks.store.batch import per_engine
from services.tasks.store.tables import tasks, tool_servers

_IN_USE = (TaskStatus.ACTIVE, TaskStatus.PAUSED)


@dataclass(frozen=True)
class KnownServer:
    """What a step that names a server must know of it."""

    enabled: bool
    tools_known: bool
    """False: it may have any tool."""


@dataclass(frozen=True)
class User:
    """A task that names a tool."""

    id: str
    title: str


def add_tool_server(connection: Connection, server: ToolServer) -> bool:
    """Stores a tool server unless its name is taken; answers whether it did."""
    row = upsert(connection, tool_servers).values(asdict(server)).on_conflict_do_nothing()
    return connection.execute(row.returning(tool_servers.c.name)).first() is not None


def get_tool_server(connection: Connection, name: str) -> ToolServer | None:
    return _of(connection.execute(select(tool_servers).where(tool_servers.c.name == name)).one_or_none())


def lock_tool_server(connection: Connection, name: str) -> ToolServer | None:
    """One tool server, to be changed by this transaction alone."""
    query = select(tool_servers).where(tool_servers.c.name == name).with_for_update()
    return _of(connection.execute(query).one_or_none())


def save_tool_server(connection: Connection, server: ToolServer) -> None:
    """Replaces all that is stored of a tool server."""
    connection.execute(update(tool_servers).where(tool_servers.c.name == server.name).values(asdict(server)))


def delete_tool_server(connection: Connection, name: str) -> None:
    """Deletes a tool server and, by its foreign key, its tools."""
    connection.execute(delete(tool_servers).where(tool_servers.c.name == name))


def list_tool_servers(connection: Connection, *, limit: int, after_name: str | None) -> list[ToolServer]:
    """Up to `limit` tool servers by name, behind `after_name`."""
    query = select(tool_servers).order_by(tool_servers.c.name).limit(limit)
    if after_name is not None:
        query = query.where(tool_servers.c.name > after_name)
    return [_tool_server(row) for row in connection.execute(query)]


def names_managed_by(connection: Connection, manager: ToolServerManager) -> list[str]:
    """The names of the servers that somebody manages."""
    return list(connection.execute(select(tool_servers.c.name).where(tool_servers.c.managed_by == manager)).scalars())


def servers_known(connection: Connection, names: Collection[str]) -> dict[str, KnownServer]:
    """Those of the tool servers that exist."""
    columns = (tool_servers.c.name, tool_servers.c.enabled, tool_servers.c.tools_known_at)
    query = select(*columns).where(tool_servers.c.name.in_(list(names)))
    return {row.name: KnownServer(row.enabled, row.tools_known_at is not None) for row in connection.execute(query)}


def users(connection: Connection, name: str, limit: int) -> list[User]:
    """Up to `limit` tasks that are not over and have a step with a tool of the server, the newest first.

    This reads the payload of every such task. Servers are seldom deleted.
    """
    found = connection.execute(_users(connection), {"prefix": f"{name}.", "limit": limit})
    return [User(row.id, row.title) for row in found]


@per_engine
def _users(for_postgres: bool) -> Select[Any]:
    steps = (
        "jsonb_path_query(tasks.payload, 'strict $.pipeline[*].uses') AS step (uses)"
        if for_postgres
        else "json_each(tasks.payload, '$.pipeline') AS step"
    )
    uses = "step.uses #>> '{}'" if for_postgres else "json_extract(step.value, '$.uses')"
    names_it = text(f"EXISTS (SELECT 1 FROM {steps} WHERE substr({uses}, 1, length(:prefix)) = :prefix)")  # noqa: S608
    return (
        select(tasks.c.id, tasks.c.title)
        .where(tasks.c.status.in_(_IN_USE), names_it.bindparams(bindparam("prefix", type_=String())))
        .order_by(tasks.c.id.desc())
        .limit(bindparam("limit"))
    )


def _of(row: Row[Any] | None) -> ToolServer | None:
    return None if row is None else _tool_server(row)


def _tool_server(row: Row[Any]) -> ToolServer:
    known = row._asdict()
    return ToolServer(
        **known | {"transport": ToolTransport(known["transport"]), "managed_by": ToolServerManager(known["managed_by"])}
    )
