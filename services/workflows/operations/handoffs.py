"""Reading, accepting and rejecting what is handed over, and taking back what nobody accepts."""

from dataclasses import replace

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.workflows.errors import HandoffNotFound, HandoffNotOffered, RoleNotHeld
from services.workflows.models.template import Definition, Transition, TransitionKind
from services.workflows.models.workflow import Handoff, HandoffFilter, HandoffStatus, Workflow, WorkflowEventType
from services.workflows.operations.moving import Moving, move, open_workflow, stay
from services.workflows.store import handoff as store
from services.workflows.store import record

BATCH = 100
_NOT_IN_TIME = "nobody has accepted it in time"


def get_handoff(connection: Connection, handoff_id: str) -> Handoff:
    """One hand-off. Raises HandoffNotFound."""
    handoff = store.find_handoff(connection, handoff_id)
    if handoff is None:
        raise HandoffNotFound(handoff_id)
    return handoff


def list_handoffs(connection: Connection, wanted: HandoffFilter, *, limit: int, before_id: str | None) -> list[Handoff]:
    """Up to `limit` hand-offs, newest first, with smaller ids than `before_id`."""
    return store.list_handoffs(connection, wanted, limit=limit, before_id=before_id)


def accept_handoff(
    connection: Connection, handoff_id: str, caller: Caller, clock: Clock, *, request_id: str = ""
) -> Handoff:
    """Accepts what is offered to the caller's role, for the work to go on.

    Raises HandoffNotFound, RoleNotHeld, HandoffNotOffered or WorkflowEnded.
    """
    handoff, found = _offered(connection, handoff_id, HandoffStatus.ACCEPTED, caller)
    if found is None:
        return handoff
    workflow, _ = found
    stay(
        connection,
        workflow,
        WorkflowEventType.HANDOFF_ACCEPTED,
        caller,
        {"handoff_id": handoff_id},
        clock,
        request_id=request_id,
    )
    return _decided(connection, handoff, HandoffStatus.ACCEPTED, caller, clock)


def reject_handoff(
    connection: Connection, handoff_id: str, reason: str, caller: Caller, clock: Clock, *, request_id: str = ""
) -> Handoff:
    """Rejects what is offered to the caller's role: the work goes back to where it came from.

    Raises HandoffNotFound, RoleNotHeld, HandoffNotOffered or WorkflowEnded.
    """
    handoff, found = _offered(connection, handoff_id, HandoffStatus.REJECTED, caller)
    if found is None:
        return handoff
    rejected = _decided(connection, handoff, HandoffStatus.REJECTED, caller, clock, reason)
    why = Moving(
        event_type=WorkflowEventType.HANDOFF_REJECTED,
        caller=caller,
        role=caller.role,
        reason=reason,
        request_id=request_id,
        returns_to=handoff.came_from,
    )
    _return(connection, *found, handoff, why, clock)
    return rejected


def expire_handoffs(connection: Connection, clock: Clock) -> int:
    """Takes back up to BATCH offers that nobody has accepted in time; answers how many."""
    expired = 0
    for handoff_id, workflow_id in store.late_handoffs(connection, clock.now(), BATCH):
        workflow, definition = open_workflow(connection, workflow_id)
        handoff = get_handoff(connection, handoff_id)
        if handoff.status is not HandoffStatus.OFFERED:
            # Somebody was faster.
            continue
        # In the name of who has offered it: nobody else has done anything.
        offered_by = record.last_mover(connection, workflow_id)
        _decided(connection, handoff, HandoffStatus.EXPIRED, None, clock, _NOT_IN_TIME)
        why = Moving(
            event_type=WorkflowEventType.HANDOFF_EXPIRED,
            caller=Caller(offered_by),
            role="",
            reason=_NOT_IN_TIME,
            returns_to=handoff.came_from,
        )
        _return(connection, workflow, definition, handoff, why, clock)
        expired += 1
    return expired


def _offered(
    connection: Connection, handoff_id: str, wanted: HandoffStatus, caller: Caller
) -> tuple[Handoff, tuple[Workflow, Definition] | None]:
    """A hand-off that is offered to the caller, with its workflow, locked, and template; without them when the caller
    has decided so already."""
    handoff = get_handoff(connection, handoff_id)
    if handoff.to_role != caller.role and not caller.holds("admin"):
        raise RoleNotHeld(handoff.to_role, caller.role)
    if handoff.status is HandoffStatus.OFFERED:
        found = open_workflow(connection, handoff.workflow_id)
        handoff = get_handoff(connection, handoff_id)
        if handoff.status is HandoffStatus.OFFERED:
            return handoff, found
    if handoff.status is wanted and handoff.decided_by == caller.agent_id:
        return handoff, None
    raise HandoffNotOffered(handoff_id, handoff.status)


def _decided(
    connection: Connection,
    handoff: Handoff,
    status: HandoffStatus,
    caller: Caller | None,
    clock: Clock,
    reason: str = "",
) -> Handoff:
    decided_by = caller.agent_id if caller else None
    decided = replace(handoff, status=status, decided_by=decided_by, decided_at=clock.now(), reason=reason)
    store.decide_handoff(connection, decided)
    return decided


def _return(
    connection: Connection, workflow: Workflow, definition: Definition, handoff: Handoff, why: Moving, clock: Clock
) -> None:
    """Sets a workflow back to where work came from that nobody took."""
    back = Transition(handoff.to_state, handoff.from_state, TransitionKind.RECOVER)
    move(connection, workflow, definition, back, why, clock)
