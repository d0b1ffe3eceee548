"""Hand-offs, as messages."""

from baton.workflows.v1 import handoff_service_pb2, template_pb2, workflow_pb2

from services.chassis.enums import prefix
from services.chassis.ids import stored_id
from services.chassis.structs import to_struct
from services.chassis.timestamps import to_timestamp
from services.workflows.models.workflow import Handoff, HandoffFilter, HandoffStatus

_STATUS = prefix("HandoffStatus")


def handoff_filter(request: handoff_service_pb2.ListHandoffsRequest) -> HandoffFilter:
    """Which hand-offs the caller wants to see."""
    names = (workflow_pb2.HandoffStatus.Name(number) for number in request.status)
    statuses = (HandoffStatus(name.removeprefix(_STATUS).lower()) for name in names)
    return HandoffFilter(
        statuses=tuple(dict.fromkeys(statuses)),
        to_role=request.to_role,
        workflow_id=stored_id(request.workflow_id) if request.workflow_id else "",
    )


def handoff_message(handoff: Handoff) -> workflow_pb2.Handoff:
    """A hand-off as it is answered."""
    return workflow_pb2.Handoff(
        id=handoff.id,
        workflow_id=handoff.workflow_id,
        from_role=handoff.from_role,
        to_role=handoff.to_role,
        from_state=handoff.from_state,
        to_state=handoff.to_state,
        kind=template_pb2.TransitionKind.Value(f"TRANSITION_KIND_{handoff.kind.name}"),
        data_transferred=to_struct(handoff.data),
        timestamp=to_timestamp(handoff.created_at),
        status=workflow_pb2.HandoffStatus.Value(_STATUS + handoff.status.name),
        ack_deadline=to_timestamp(handoff.ack_deadline),
        decided_by=handoff.decided_by or "",
        decided_at=to_timestamp(handoff.decided_at),
        reason=handoff.reason,
    )
