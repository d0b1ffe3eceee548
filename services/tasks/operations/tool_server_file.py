"""The tool servers of the operator's file."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.database_errors import TryAgain
from services.tasks.models.tool_server import NewToolServer, ToolServer, ToolServerManager, said
from services.tasks.operations.tool_server import audit_server, save_server
from services.tasks.store import tool_server as store

# Nobody calls: the agent that exists from the start stands for the operator.
_OPERATOR = "00000000-0000-0000-0000-000000000001"


def sync_tool_servers(connection: Connection, listed: Sequence[NewToolServer], clock: Clock) -> list[str]:
    """Makes the servers that a file manages those that it lists; answers the names of those that were changed.

    A server of the same name that callers have registered becomes the file's.
    """
    return [*_remove_others(connection, listed, clock), *(new.name for new in listed if _put(connection, new, clock))]


def _remove_others(connection: Connection, listed: Sequence[NewToolServer], clock: Clock) -> list[str]:
    kept = {new.name for new in listed}
    removed = [name for name in store.names_managed_by(connection, ToolServerManager.FILE) if name not in kept]
    for name in removed:
        server = store.lock_tool_server(connection, name)
        if server is not None:  # another replica may have been faster
            store.delete_tool_server(connection, name)
            audit_server(connection, "delete", server, None, _OPERATOR, clock)
    return removed


def _put(connection: Connection, new: NewToolServer, clock: Clock) -> bool:
    """Stores one server; answers whether anything of it has changed."""
    added = ToolServer(**said(new), managed_by=ToolServerManager.FILE, created_at=clock.now())
    if store.add_tool_server(connection, added):
        audit_server(connection, "create", None, added, _OPERATOR, clock)
        return True
    before = store.lock_tool_server(connection, new.name)
    if before is None:
        raise TryAgain  # it was deleted a moment ago
    after = save_server(connection, before, replace(before, **said(new), managed_by=ToolServerManager.FILE))
    if after == before:
        return False
    audit_server(connection, "update", before, after, _OPERATOR, clock)
    return True
