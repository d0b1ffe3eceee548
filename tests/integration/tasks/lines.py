"""Runs in lines, straight through the store and the operations, and what must hold of them at any time."""

from collections import defaultdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from services.chassis.backoff import BackoffStrategy
from services.chassis.clock import Clock
from services.chassis.ids import new_id
from services.tasks.models.run import NewRun
from services.tasks.store.tables import runs
from tests.integration.tasks.running import NO_TRACE

OWNER = new_id()


def new_run(due_at: datetime, **changes: Any) -> NewRun:
    """A run of nothing, without a key, unless `changes` say more."""
    fields: dict[str, Any] = {
        "id": new_id(),
        "task_id": new_id(),
        "task": "a task",
        "priority": 5,
        "due_at": due_at,
        "payload": {"pipeline": []},
        "traceparent": NO_TRACE,
        "created_by": OWNER,
        "role": "",
        "batch_id": "",
        "concurrency_key": "",
        "max_retries": 3,
        "backoff_strategy": BackoffStrategy.FIXED,
    }
    return NewRun(**fields | changes)


def check_lines(connection: Connection, clock: Clock) -> None:
    """Raises AssertionError when a line has no head, or two, or the wrong one, or a key two leases."""
    lines: dict[tuple[str, str], list[Row[Any]]] = defaultdict(list)
    holders: dict[str, str] = {}
    for run in connection.execute(select(runs)):
        if not run.concurrency_key:
            assert not run.blocked
            continue
        lines[run.role, run.concurrency_key].append(run)
        if run.lease_token is not None:
            assert holders.setdefault(run.concurrency_key, run.id) == run.id
    for line in lines.values():
        _check_line(line, clock.now())


def _check_line(line: list[Row[Any]], now: datetime) -> None:
    heads = [run for run in line if not run.blocked]
    leased = [run for run in line if run.lease_token is not None]
    ready = [run for run in line if run.paused_at is None]
    if leased:
        assert heads == leased
    elif not ready:
        assert heads == []
    else:
        (head,) = heads
        assert head in ready
        # Who is not due keeps nobody who is.
        assert head.due_at <= now or head.due_at == min(run.due_at for run in ready)
