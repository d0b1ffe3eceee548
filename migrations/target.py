"""What a migration works on, whichever engine it is."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from migrations import address
from migrations.errors import Unreachable


class Target(Protocol):
    """One installation's tables: a PostgreSQL database, or a directory of SQLite files."""

    @property
    def name(self) -> str:
        """What its owner calls it: the database's or the directory's name."""

    @property
    def shown(self) -> str:
        """Its URL without secrets."""

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other migrations out, also those of other processes. Raises LockHeld, Unreachable."""

    def prepare(self, secret: bytes | None) -> None:
        """Makes what the tables need around them, before any step."""

    def protect(self) -> None:
        """Gives the services access to their tables, and to nothing else; done again after the steps."""

    def exposures(self) -> list[str]:
        """Every way in which access to the tables is not as promised."""

    def connect(self, context: str) -> AbstractContextManager[Connection]:
        """A connection on which the tables of `context` need no schema name. Raises Unreachable."""

    def is_development(self) -> bool:
        """Whether it bears the mark of a database whose data may be dropped."""

    def mark_development(self) -> None:
        """Sets that mark."""

    def drop_everything(self) -> None:
        """Drops all tables of all contexts with their data."""


@contextmanager
def connected(engine: Engine, url: URL) -> Iterator[Connection]:
    """A connection that is closed at the end. Raises Unreachable, which says why."""
    try:
        connection = engine.connect()
    except DBAPIError as error:
        raise unreachable(url, error.orig or error) from error
    with connection:
        yield connection


def unreachable(url: URL, cause: BaseException) -> Unreachable:
    """Says what cannot be reached and why, without secrets."""
    reason = " ".join(address.without_secrets(str(cause), url).split())
    return Unreachable(f"the database {address.shown(url)} cannot be reached: {reason}")
