"""Explanations."""

from baton.tasks.v1 import blocker_pb2

from services.chassis.structs import to_struct
from services.tasks.models.blocker import Blocker


def blocker_message(blocker: Blocker) -> blocker_pb2.Blocker:
    """A blocker as it is answered."""
    return blocker_pb2.Blocker(
        code=blocker.code,
        message=blocker.message,
        evidence=to_struct(blocker.evidence),
        action=blocker.action,
    )
