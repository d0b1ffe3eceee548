"""How the database goes about what is asked of it."""

from collections.abc import Callable
from typing import Any, Protocol

from sqlalchemy import Connection, event

from services.chassis.clock import Clock
from services.chassis.database import Database


class Running(Protocol):
    """A running service."""

    @property
    def database(self) -> Database: ...


async def plans(tasks: Running, work: Callable[[Connection, Clock], Any]) -> list[str]:
    """How the database goes about each statement of `work`."""

    def explain(connection: Connection, clock: Clock) -> list[str]:
        sent: list[tuple[str, Any]] = []

        def record(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if not statement.startswith("SET"):
                sent.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", record)
        work(connection, clock)
        event.remove(connection, "before_cursor_execute", record)
        prefix = "EXPLAIN (ANALYZE, COSTS OFF)" if tasks.database.is_postgres else "EXPLAIN QUERY PLAN"
        explained = (connection.exec_driver_sql(f"{prefix} {statement}", parameters) for statement, parameters in sent)
        return ["\n".join(str(row[-1]) for row in rows) for rows in explained]

    return await tasks.database.read(explain)
