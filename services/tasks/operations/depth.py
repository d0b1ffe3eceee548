"""How many events and runs led to another: a loop of them is cut."""

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.tasks.errors import LoopCut, RunNotInProgress
from services.tasks.models.event import MAX_DEPTH
from services.tasks.store.lease import depth_in_progress


def depth_of(connection: Connection, caller: Caller) -> int | None:
    """The depth of what the caller makes: one more than that of the run in whose course it acts; None without one.

    Raises RunNotInProgress: a worker that has lost its run makes nothing more of it.
    """
    if not caller.run_id:
        return None
    depth = depth_in_progress(connection, caller.run_id)
    if depth is None:
        raise RunNotInProgress(caller.run_id)
    return depth + 1


def depth_of_run(connection: Connection, caller: Caller) -> int | None:
    """The same for a run that the caller starts. Raises LoopCut, too."""
    depth = depth_of(connection, caller)
    if depth is not None and depth > MAX_DEPTH:
        raise LoopCut
    return depth
