"""How work that is handed to a role stands."""

from collections.abc import Mapping
from enum import StrEnum

from services.tasks.models.run import RunStatus


class Standing(StrEnum):
    """What those who wait for routed work call the state of its newest run."""

    PENDING = "pending"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


RUN_STATUSES: Mapping[Standing, tuple[RunStatus, ...]] = {
    Standing.PENDING: (RunStatus.QUEUED, RunStatus.AWAITING_APPROVAL),
    Standing.ACTIVE: (RunStatus.RUNNING,),
    Standing.COMPLETED: (RunStatus.SUCCEEDED,),
    Standing.FAILED: (RunStatus.FAILED,),
    Standing.CANCELED: (RunStatus.CANCELED, RunStatus.SKIPPED),
}
"""Which states those are; each run is in one of them."""
