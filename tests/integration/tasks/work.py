"""What workers say of their work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from baton.tasks.v1 import run_pb2
from baton.tasks.v1.work_service_pb2 import LeaseRunsRequest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Connection, text

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.ids import new_id
from services.chassis.structs import to_value
from services.tasks.service import SCHEMA
from tests.integration.tasks.running import Tasks

# A worker that no hint reaches would wait for longer.
PROMPTLY = 3.0
_AT = Timestamp()
_AT.FromDatetime(datetime(2026, 5, 12, 10, 15, 30, 123456, tzinfo=UTC))


def step(position: int, **changes: Any) -> run_pb2.RunStep:
    """A step that succeeded with its position as its output, unless `changes` say otherwise."""
    fields: dict[str, Any] = {
        "position": position,
        "id": f"step_{position + 1}",
        "uses": "echo.test",
        "status": run_pb2.STEP_STATUS_SUCCEEDED,
        "attempt": 1,
        "input_digest": "ab" * 32,
        "output": to_value({"position": position}),
        "started_at": _AT,
        "finished_at": _AT,
        "duration_ms": 12,
        "span_id": "cd" * 8,
        "tries": 1,
    }
    return run_pb2.RunStep(**fields | changes)


def failed_step(position: int, **changes: Any) -> run_pb2.RunStep:
    """A step whose tool failed."""
    fields = {"status": run_pb2.STEP_STATUS_FAILED, "output": None, "error": failure()}
    return step(position, **fields | changes)


def failure(message: str = "the tool is down") -> run_pb2.RunError:
    return run_pb2.RunError(**{"class": run_pb2.ERROR_CLASS_TOOL}, message=message, retryable=True, step_id="step_1")


async def waiting_workers(tasks: Tasks, count: int = 1) -> list[asyncio.Task[list[str]]]:
    """Workers that wait for a run; each answers the ids of the runs it gets."""

    async def worker() -> list[str]:
        response = await tasks.work.LeaseRuns(LeaseRunsRequest(worker_id=new_id(), wait_seconds=10))
        return [run.lease.run_id for run in response.runs]

    waiting = [asyncio.create_task(worker()) for _ in range(count)]
    # They have looked and found nothing.
    _, pending = await asyncio.wait(waiting, timeout=0.1)
    assert len(pending) == count
    return waiting


@asynccontextmanager
async def locked_queue(tasks: Tasks) -> AsyncIterator[None]:
    """A time in which claims have to wait."""
    database = Database(tasks.settings.database_url, schema=SCHEMA, pool_size=1)
    loop = asyncio.get_running_loop()
    is_locked, may_go_on = asyncio.Event(), asyncio.Event()

    def hold(connection: Connection, clock: Clock) -> None:
        # On SQLite the transaction itself keeps all others from writing.
        if database.is_postgres:
            connection.execute(text("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE"))
        loop.call_soon_threadsafe(is_locked.set)
        asyncio.run_coroutine_threadsafe(may_go_on.wait(), loop).result(10)

    holding = asyncio.create_task(database.transact(hold))
    await is_locked.wait()
    try:
        yield
    finally:
        may_go_on.set()
        await holding
        database.close()
