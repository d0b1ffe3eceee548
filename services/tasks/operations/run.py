"""Runs, as people steer them: made in batches, called off, done anew."""

from sqlalchemy import Connection

from services.chassis.backoff import BackoffStrategy
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.ids import new_id
from services.tasks.errors import (
    RunFinished,
    RunNotFinished,
    RunNotFound,
    RunOfAnotherAgent,
    RunReported,
    RunSucceeded,
    TaskNotFound,
)
from services.tasks.models.run import ErrorClass, NewRun, Run, RunError, RunStatus
from services.tasks.operations.start import require_startable
from services.tasks.store import ending, history, queue
from services.tasks.store import task as task_store
from services.tasks.store.step import copy_done_steps


def cancel_run(connection: Connection, run_id: str, reason: str, caller: Caller, clock: Clock) -> Run:
    """Calls a run off: one that nobody works on ends, one that is under way is asked to. Repeated, changes nothing.

    Raises RunNotFound, RunOfAnotherAgent or RunFinished.
    """
    live = queue.lock_live(connection, run_id)
    if live is None:
        ended = _existing(connection, run_id)
        _require_owner(run_id, ended.created_by, caller)
        if ended.status is not RunStatus.CANCELED:
            raise RunFinished(run_id, ended.status)
        return ended
    _require_owner(run_id, live.created_by, caller)
    message = f"the run was called off: {reason}" if reason else "the run was called off"
    error = RunError(ErrorClass.CANCELED, message, retryable=False, step_id="")
    queue.cancel_live(connection, [live], error, clock.now())
    return _existing(connection, run_id)


def retry_run(connection: Connection, run_id: str, traceparent: str, caller: Caller, clock: Clock) -> Run:
    """Queues a finished run anew, as a run of its own, which has the old one's steps that are done.

    Raises RunNotFound, RunOfAnotherAgent, RunNotFinished, RunReported, RunSucceeded or TaskNotActive.
    """
    old = ending.get_ended(connection, run_id)
    if old is None:
        live = _existing(connection, run_id)
        _require_owner(run_id, live.created_by, caller)
        raise RunReported(run_id) if live.reported else RunNotFinished(run_id, live.status)
    _require_owner(run_id, old.created_by, caller)
    if old.reported:
        raise RunReported(run_id)
    if old.status == RunStatus.SUCCEEDED:
        raise RunSucceeded(run_id)
    task = task_store.keep_tasks(connection, [old.task_id]).get(old.task_id)
    if task is None:
        raise TaskNotFound(old.task_id)
    require_startable(task)
    now = clock.now()
    anew = {"id": new_id(), "retry_of": run_id, "due_at": now, "traceparent": traceparent}
    kept = {name: old._mapping[name] for name in ending.KEPT_IN_RETRY}
    run = NewRun(**kept | anew | {"backoff_strategy": BackoffStrategy(old.backoff_strategy)})
    queue.add_runs(connection, [run], now)
    copy_done_steps(connection, from_run=run_id, to_run=run.id)
    return _existing(connection, run.id)


def _existing(connection: Connection, run_id: str) -> Run:
    run = history.get_run(connection, run_id)
    if run is None:
        raise RunNotFound(run_id)
    return run


def _require_owner(run_id: str, created_by: str, caller: Caller) -> None:
    if created_by != caller.agent_id and not caller.holds("admin"):
        raise RunOfAnotherAgent(run_id)
