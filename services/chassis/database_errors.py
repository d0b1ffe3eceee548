"""What the two database drivers raise, in our words: the only place that knows their errors."""

import logging
import random
import sqlite3

import psycopg
from sqlalchemy import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.chassis.errors import DeadlineExceeded, InvalidArgument, Unavailable

_log = logging.getLogger(__name__)
ATTEMPTS = 5
_SERIALIZATION_FAILURE, _DEADLOCK, _QUERY_CANCELED, _LOCK_NOT_AVAILABLE = "40001", "40P01", "57014", "55P03"
_SQLITE_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
# How SQLite words what makes its file unusable; its other operational errors are faults of ours. A missing table is a
# database that was not migrated (yet).
_SQLITE_UNREACHABLE = ("unable to open", "no such table", "disk I/O", "disk is full", "readonly database")
_UNREACHABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.UndefinedTable,
)


# Classes of errors whose message itself may say values: data exceptions and integrity constraint violations.
_ABOUT_VALUES = ("22", "23")


class TryAgain(Exception):
    """The transaction has not happened, and may when it is run again. After `attempts` in all, callers get `error`."""

    def __init__(self, error: Unavailable | None = None, attempts: int = ATTEMPTS) -> None:
        super().__init__()
        self.error = error or too_busy()
        self.attempts = attempts


def rest(attempt: int, lost: TryAgain) -> float:
    """How many seconds to rest before the next attempt. Raises Unavailable after the last one."""
    if attempt >= lost.attempts:
        raise lost.error from lost
    return random.uniform(0, 0.01 * 2**attempt)


def too_busy() -> Unavailable:
    return Unavailable("the database is too busy", reason="DATABASE_BUSY", retry_after=1)


def translated(error: DBAPIError | PoolTimeout, *, committing: bool) -> Exception:
    """What a caller is told of a driver's error, or the error itself when it is a fault of ours.

    `committing` says that COMMIT may have been sent: when the connection is lost then, nobody knows what happened.
    """
    if isinstance(error, PoolTimeout):
        return too_busy()
    cause = error.orig
    state = getattr(cause, "sqlstate", None)
    if state in (_SERIALIZATION_FAILURE, _DEADLOCK):
        return TryAgain()
    if _sqlite_busy(cause) or state == _LOCK_NOT_AVAILABLE:
        return too_busy()  # after it was waited for
    if state == _QUERY_CANCELED:
        return DeadlineExceeded("the database did not answer in time")
    if isinstance(cause, psycopg.DataError):
        return InvalidArgument("a value does not fit the column it is for")
    if _is_unreachable(cause):
        _log.warning("database_unavailable", extra={"cause": str(cause)})
        return _unreachable(error, committing)
    return error


def say_no_values(context: ExceptionContext) -> None:
    """Takes the values of rows out of an error of PostgreSQL before anybody logs or traces it.

    They are in the detail that every violated constraint brings, and in the message about a value that is no such
    thing; what is left says where. SQLite's errors have none.
    """
    cause, error = context.original_exception, context.sqlalchemy_exception
    if not isinstance(cause, psycopg.Error) or cause.sqlstate is None:
        return
    said = cause.diag
    message = said.message_primary or ""
    if cause.sqlstate[:2] in _ABOUT_VALUES:
        places = (said.schema_name, said.table_name, said.column_name, said.constraint_name)
        message = f"{cause.sqlstate} at {'.'.join(filter(None, places)) or 'a parameter'}"
    cause.args = (message,)
    if error is not None:
        error.args = (f"({type(cause).__name__}) {message}",)


def waited_in_vain(error: DBAPIError) -> bool:
    """Whether it says that a lock was not to be had within the `lock_timeout`."""
    return getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE


def _is_unreachable(cause: BaseException | None) -> bool:
    if isinstance(cause, sqlite3.OperationalError):
        return any(words in str(cause) for words in _SQLITE_UNREACHABLE)
    return isinstance(cause, _UNREACHABLE)


def _unreachable(error: DBAPIError, committing: bool) -> Exception:
    told = Unavailable("the database cannot be reached right now", reason="DATABASE_UNAVAILABLE", retry_after=1)
    if isinstance(error.orig, psycopg.errors.IdleInTransactionSessionTimeout):
        # This process stood still, and the server took back what it had done, whatever that was.
        return TryAgain(told)
    if error.connection_invalidated and not committing:
        # Once, for what if the server died of this very work?
        return TryAgain(told, attempts=2)
    return told


def _sqlite_busy(cause: BaseException | None) -> bool:
    return isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode & 0xFF in _SQLITE_BUSY
