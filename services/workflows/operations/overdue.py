"""Noticing workflows whose state was not left in time."""

from dataclasses import replace

from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.clock import Clock, instant_text
from services.workflows.operations.telling import about
from services.workflows.store import tables
from services.workflows.store import workflow as store

BATCH = 100
_TOPIC = "workflow.overdue"


def note_overdue(connection: Connection, clock: Clock) -> int:
    """Marks up to BATCH workflows that are past their deadline and publishes that they are; answers how many."""
    overdue = store.lock_overdue(connection, clock.now(), BATCH)
    for workflow in overdue:
        # No version of its own: nobody has done anything, and whoever is late may still go on with what they have read.
        store.save_workflow(connection, replace(workflow, is_overdue=True))
        assert workflow.deadline is not None, "nothing is late without a deadline"
        payload = about(workflow) | {"state": workflow.state, "deadline": instant_text(workflow.deadline)}
        outbox.event(connection, tables.outbox, clock, topic=_TOPIC, payload=payload)
    return len(overdue)
