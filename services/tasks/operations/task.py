"""Creating, reading and starting tasks."""

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.tasks.errors import CreatedByNotCaller, TaskNotFound, TaskOfAnotherAgent
from services.tasks.models.task import NewTask, Task, TaskStatus
from services.tasks.operations.probing import follow_task
from services.tasks.operations.task_audit import tell_task
from services.tasks.operations.task_faults import faults_of
from services.tasks.store import task as task_store


def create_task(
    connection: Connection, new: NewTask, caller: Caller, clock: Clock, *, task_id: str | None = None
) -> Task:
    """Checks the whole task, collecting every fault, and stores it; with an id of its own unless it is given."""
    require_own_name(new, caller)
    now = clock.now()
    first, faults = faults_of(connection, new, now)
    if faults:
        raise InvalidArgument.of(faults)
    given = vars(new) | {"created_by": new.created_by or caller.agent_id}
    task = Task(
        id=task_id or new_id(),
        status=TaskStatus.ACTIVE,
        schedule_anchor=now,
        paused_at=None,
        next_fire_at=first,
        next_scheduled_for=first,
        created_at=now,
        updated_at=now,
        **given,
    )
    tell_task(connection, ["task.created"], task, caller, clock)
    task_store.add_task(connection, task)
    follow_task(connection, None, task, now)
    return task


def get_task(connection: Connection, task_id: str) -> Task:
    """One task. Raises TaskNotFound."""
    return _existing(task_store.get_task(connection, task_id), task_id)


def lock_own_task(connection: Connection, task_id: str, caller: Caller) -> Task:
    """One task for its caller to change. Raises TaskNotFound, or TaskOfAnotherAgent."""
    task = _existing(task_store.lock_task(connection, task_id), task_id)
    require_owner(task, caller)
    return task


def require_own_name(new: NewTask, caller: Caller) -> None:
    """Raises CreatedByNotCaller for who creates in another's name and may not."""
    if new.created_by not in ("", caller.agent_id) and not caller.holds("admin"):
        raise CreatedByNotCaller


def require_owner(task: Task, caller: Caller) -> None:
    """Raises TaskOfAnotherAgent for who neither owns the task nor may do everything."""
    if task.created_by != caller.agent_id and not caller.holds("admin"):
        raise TaskOfAnotherAgent(task.id)


def _existing(task: Task | None, task_id: str) -> Task:
    if task is None:
        raise TaskNotFound(task_id)
    return task
