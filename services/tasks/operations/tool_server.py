"""Registering, reading, changing and deleting tool servers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx2
from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.egress import urls
from services.chassis.errors import InvalidArgument
from services.tasks.errors import (
    ToolServerInUse,
    ToolServerManagedByFile,
    ToolServerNameTaken,
    ToolServerNotFound,
)
from services.tasks.models.tool_server import MASK, NewToolServer, ToolServer, ToolServerManager, said
from services.tasks.operations.tool_server_faults import server_faults
from services.tasks.store import tables
from services.tasks.store import tool as tool_store
from services.tasks.store import tool_server as store

USERS_NAMED = 10
"""Tasks that use a server, as far as they are named."""

_STARTS_SERVERS = "runs:work"
# Another of these is another server, whose tools nobody knows yet.
_WHERE_IT_IS = frozenset({"transport", "command", "env", "url"})


def create_tool_server(
    connection: Connection, new: NewToolServer, caller: Caller, clock: Clock, *, request_id: str = ""
) -> ToolServer:
    """Registers a tool server; answers it masked, for the answer is remembered by its idempotency key."""
    _require_faultless(new)
    server = ToolServer(**said(new), managed_by=ToolServerManager.API, created_at=clock.now())
    if not store.add_tool_server(connection, server):
        raise ToolServerNameTaken(new.name)
    audit_server(connection, "create", None, server, caller.agent_id, clock, request_id=request_id)
    return server.masked()


def get_tool_server(connection: Connection, name: str) -> ToolServer:
    """One tool server, masked. Raises ToolServerNotFound."""
    return _existing(store.get_tool_server(connection, name), name).masked()


def list_tool_servers(
    connection: Connection, caller: Caller, *, limit: int, after_name: str | None
) -> list[ToolServer]:
    """Up to `limit` tool servers by name, behind `after_name`; masked unless the caller starts their processes.

    That is who was given `runs:work` by name, and has no role: an agent with one does its own work. To `admin`, who may
    do everything, no values are shown.
    """
    servers = store.list_tool_servers(connection, limit=limit, after_name=after_name)
    is_worker = _STARTS_SERVERS in caller.scopes and not caller.role
    return servers if is_worker else [server.masked() for server in servers]


def update_tool_server(
    connection: Connection,
    name: str,
    given: Mapping[str, Any],
    caller: Caller,
    clock: Clock,
    *,
    request_id: str = "",
) -> ToolServer:
    """Changes the fields of a server that are given, by the names of the model's; answers it masked.

    A masked value of `env` stays what it is, so that a client may send back what it has read. Where a server is to be
    found at another place, nothing is known of its tools any more.

    Raises ToolServerNotFound, ToolServerManagedByFile, InvalidArgument.
    """
    before = _own(connection, name)
    wanted = replace(before, **given)
    wanted = replace(wanted, env=_unmasked(wanted.env, before.env))
    _require_faultless(wanted)
    after = save_server(connection, before, wanted)
    if after != before:
        audit_server(connection, "update", before, after, caller.agent_id, clock, request_id=request_id)
    return after.masked()


def delete_tool_server(
    connection: Connection, name: str, caller: Caller, clock: Clock, *, force: bool, request_id: str = ""
) -> list[store.User]:
    """Deletes a server and what is known of its tools; answers tasks that use it all the same.

    Raises ToolServerNotFound, ToolServerManagedByFile, and ToolServerInUse unless it is forced.
    """
    server = _own(connection, name)
    users = store.users(connection, name, USERS_NAMED + 1)
    if users and not force:
        titles = {user.id: user.title for user in users[:USERS_NAMED]}
        raise ToolServerInUse(name, titles, more=len(users) > USERS_NAMED)
    store.delete_tool_server(connection, name)
    audit_server(connection, "delete", server, None, caller.agent_id, clock, request_id=request_id)
    return users[:USERS_NAMED]


def save_server(connection: Connection, before: ToolServer, wanted: ToolServer) -> ToolServer:
    """Stores a server as it is to be. Answers it; one that is so already is left alone."""
    if any(getattr(before, name) != getattr(wanted, name) for name in _WHERE_IT_IS):
        wanted = replace(wanted, tools_known_at=None, last_error="", last_error_at=None)
        tool_store.forget_tools(connection, before.name)
    if wanted != before:
        store.save_tool_server(connection, wanted)
    return wanted


def audit_server(
    connection: Connection,
    verb: str,
    before: ToolServer | None,
    after: ToolServer | None,
    actor: str,
    clock: Clock,
    *,
    request_id: str = "",
) -> None:
    """Publishes what an agent has changed of a server; of values of `env`, and of what a URL has behind its origin,
    no more than that they are others."""
    server = after or before
    assert server is not None
    was, is_now = _audited(before), _audited(after)
    changed = [name for name in {**was, **is_now} if was.get(name) != is_now.get(name)]
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action=f"tool_server.{verb}",
        actor=actor,
        resource=f"tool_server/{server.name}",
        before=_told(was, changed, before),
        after=_told(is_now, changed, after),
        request_id=request_id,
    )


def _audited(server: ToolServer | None) -> dict[str, Any]:
    return {} if server is None else said(server) | {"managed_by": server.managed_by}


def _told(values: dict[str, Any], changed: list[str], server: ToolServer | None) -> dict[str, Any] | None:
    if server is None:
        return None
    told = values | {"env": server.masked().env, "url": urls.origin(httpx2.URL(server.url)) if server.url else ""}
    return {name: told[name] for name in changed}


def _require_faultless(server: NewToolServer) -> None:
    faults = server_faults(server)
    if faults:
        raise InvalidArgument.of(faults)


def _unmasked(env: dict[str, str], stored: Mapping[str, str]) -> dict[str, str]:
    return {name: stored.get(name, MASK) if value == MASK else value for name, value in env.items()}


def _own(connection: Connection, name: str) -> ToolServer:
    """A server for a caller to change. Raises ToolServerNotFound, ToolServerManagedByFile."""
    server = _existing(store.lock_tool_server(connection, name), name)
    if server.managed_by is ToolServerManager.FILE:
        raise ToolServerManagedByFile(name)
    return server


def _existing(server: ToolServer | None, name: str) -> ToolServer:
    if server is None:
        raise ToolServerNotFound(name)
    return server
