"""What the tasks service tells the audit."""

from typing import Any

from sqlalchemy import select

from services.tasks.store.tables import outbox
from tests.integration.tasks.running import Tasks


async def audited(tasks: Tasks) -> list[dict[str, Any]]:
    """All that was told, oldest first."""
    query = select(outbox.c.payload).where(outbox.c.topic == "audit").order_by(outbox.c.id)
    return await tasks.database.read(lambda connection, clock: list(connection.execute(query).scalars()))


async def audited_changes(tasks: Tasks) -> list[dict[str, Any]]:
    """Of that, what says how something was changed: not the plain entries of calls whose rule tells nothing more."""
    return [entry for entry in await audited(tasks) if not entry["before"] is entry["after"] is None]
