"""A directory of SQLite files, one per context."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from migrations import address
from migrations.contexts import CONTEXTS
from migrations.errors import LockHeld, Unreachable
from migrations.target import connected

_LOCK_FILE = ".migrations.lock"
_MARK_FILE = "development"
_LOCK_POLL_SECONDS = 0.05


class SqliteDirectory:
    """The tables in `sessions.db`, `tasks.db` and `workflows.db` of one directory."""

    def __init__(self, url: URL, *, lock_wait: float) -> None:
        self._url = url
        self._directory = address.directory(url)
        self._lock_wait = lock_wait

    @property
    def name(self) -> str:
        return self._directory.resolve().name

    @property
    def shown(self) -> str:
        return address.shown(self._url)

    @contextmanager
    def locked(self) -> Iterator[None]:
        with _open_lock_file(self._directory) as file:
            self._take(file)
            yield  # closing the file gives the lock back

    def prepare(self, secret: bytes | None) -> None:
        """Makes the files, for their owner alone; the ones that SQLite puts beside them follow."""
        for context in CONTEXTS:
            self._file(context).touch(mode=0o600)

    def protect(self) -> None:
        """There are no logins."""

    def exposures(self) -> list[str]:
        return []

    def connect(self, context: str) -> AbstractContextManager[Connection]:
        """Looking at what is not there makes no file: that is an empty database in memory."""
        file = self._file(context)
        return connected(_engine(f"{file.resolve().as_uri()}?mode=rw" if file.exists() else "file::memory:"), self._url)

    def is_development(self) -> bool:
        return (self._directory / _MARK_FILE).exists()

    def mark_development(self) -> None:
        (self._directory / _MARK_FILE).write_text("`python -m migrations reset` may drop the data beside this file.\n")

    def drop_everything(self) -> None:
        """The files stay: a service that has one open goes on with the new tables."""
        for context in CONTEXTS:
            with self.connect(context) as connection, connection.begin():
                names = connection.exec_driver_sql(
                    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "
                    # A virtual table takes those that it is made of along, which nobody else may drop.
                    "ORDER BY sql LIKE 'CREATE VIRTUAL%' DESC"
                )
                for name in names.scalars().all():
                    connection.exec_driver_sql(f'DROP TABLE IF EXISTS "{name}"')

    def _file(self, context: str) -> Path:
        return self._directory / f"{context}.db"

    def _take(self, file: Any) -> None:
        give_up = time.monotonic() + self._lock_wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise LockHeld(
                        f"another migration of {self.shown} is at work, for {self._lock_wait:g} s now: "
                        "let it finish, then try again"
                    ) from None
                time.sleep(_LOCK_POLL_SECONDS)


def _open_lock_file(directory: Path) -> Any:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.fdopen(os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600), "w")
    except OSError as error:
        raise Unreachable(f"the directory {directory} cannot be used: {error.strerror}") from error


def _engine(uri: str) -> Engine:
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True, timeout=5), poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, record: Any) -> None:
        # We say BEGIN ourselves: left to itself the driver begins only before an INSERT, and each CREATE TABLE
        # would stand on its own. Foreign keys stay unchecked, which is the default: rebuilding a table drops it.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
