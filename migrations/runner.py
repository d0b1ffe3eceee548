"""Brings the tables of all contexts to their newest revision."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic import command
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from migrations import address
from migrations.applied import Applied
from migrations.contexts import CONTEXTS
from migrations.errors import NotDevelopment, StepFailed
from migrations.history import CONFIG_FILE, History, State
from migrations.postgres import PostgresDatabase
from migrations.sqlite import SqliteDirectory
from migrations.target import Target

LOCK_WAIT_SECONDS = 60.0

StepDone = Callable[[str, str], None]
"""Told of each step that has run: the context and the revision."""


def open_target(database_url: str, *, lock_wait: float = LOCK_WAIT_SECONDS) -> Target:
    """What `database_url` names; nothing is opened yet. Raises UnusableAddress."""
    url = address.parse(database_url)
    if url.drivername == "sqlite":
        return SqliteDirectory(url, lock_wait=lock_wait)
    return PostgresDatabase(url, lock_wait=lock_wait)


def upgrade(
    database_url: str,
    *,
    development: bool = False,
    secret: bytes | None = None,
    config_file: Path = CONFIG_FILE,
    lock_wait: float = LOCK_WAIT_SECONDS,
    step_done: StepDone = lambda context, revision: None,
) -> list[Applied]:
    """Runs every pending step, each in a transaction of its own, under a lock; answers one item per context.

    `database_url` is an administrator's: `postgresql://user:password@host/database`, where schemas, logins and
    grants are made as well and `secret` gives the logins their passwords, or `sqlite:///directory`. With
    `development` a database that has no tables yet is marked as one whose data `reset` may drop.

    Stops at the first step that fails: that one is rolled back, those before it stay. Running it again goes on
    from there. Raises StepFailed, LockHeld after `lock_wait` seconds, Unreachable, MayNotPrepare, NewerDatabase,
    NotDevelopment, UnusableAddress.
    """
    target = open_target(database_url, lock_wait=lock_wait)
    histories = [History(context, config_file) for context in CONTEXTS]
    with target.locked():
        if development:
            _mark_development(target, histories)
        target.prepare(secret)
        target.protect()
        return _run_all(target, histories, step_done)


def states(database_url: str, *, config_file: Path = CONFIG_FILE) -> list[State]:
    """How far each context is; changes nothing. Raises Unreachable, NewerDatabase, UnusableAddress."""
    target = open_target(database_url)
    return [state(target, History(context, config_file)) for context in CONTEXTS]


def state(target: Target, history: History) -> State:
    """How far one context of `target` is."""
    with target.connect(history.context) as connection:
        return history.state(connection)


def _mark_development(target: Target, histories: list[History]) -> None:
    if target.is_development():
        return
    if any(state(target, history).current for history in histories):
        raise NotDevelopment(f"{target.shown} holds tables already: only an empty database can be marked development")
    target.mark_development()


def _run_all(target: Target, histories: list[History], step_done: StepDone) -> list[Applied]:
    done: list[Applied] = []
    try:
        for history in histories:
            with target.connect(history.context) as connection:
                done.append(_run(history, connection, step_done))
    except StepFailed as failed:
        failed.applied[:0] = done
        raise
    finally:
        if any(applied.steps for applied in done):
            target.protect()
    return done


def _run(history: History, connection: Connection, step_done: StepDone) -> Applied:
    start = time.perf_counter()
    before = history.state(connection)
    failure = _attempt(history, connection, step_done) if before.pending else None
    after = history.state(connection)
    steps = len(before.pending) - len(after.pending)
    applied = Applied(history.context, before.current, after.current, steps, time.perf_counter() - start)
    if failure is not None:
        culprit = after.pending[0]
        raise StepFailed(
            f"step {culprit.revision} of {history.context} ({culprit.summary}) failed and was rolled back: "
            f"{_reason(failure)}",
            [applied],
        ) from failure
    return applied


def _attempt(history: History, connection: Connection, step_done: StepDone) -> Exception | None:
    """Runs the pending steps; answers what stopped them."""

    def on_version_apply(*, step: Any, **_: Any) -> None:
        step_done(history.context, step.up_revision_id)

    history.config.attributes.update(connection=connection, on_version_apply=on_version_apply)
    try:
        command.upgrade(history.config, "head")
    except Exception as failure:  # whatever a revision raises, it has stopped
        connection.rollback()
        return failure
    return None


def _reason(failure: Exception) -> str:
    cause = failure.orig if isinstance(failure, DBAPIError) else failure
    return " ".join(str(cause).split()) or type(failure).__name__
