"""One PostgreSQL database with a schema and a login per context."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.pool import NullPool

from migrations import access, address, exposure
from migrations.contexts import CONTEXTS
from migrations.errors import LockHeld, MayNotPrepare, NotDevelopment
from migrations.target import connected, unreachable

_LOCK = 0x6261746F6E  # any number that nobody else locks: "baton" in ASCII
_STEP_LIMITS = "-c lock_timeout=5s -c statement_timeout=10min"
_CONNECT_TIMEOUT_SECONDS = 5
_MARK = "baton.environment=development"


class PostgresDatabase:
    """The tables in the schemas `sessions`, `tasks` and `workflows` of one database."""

    def __init__(self, url: URL, *, lock_wait: float) -> None:
        self._url = url
        self._lock_wait = lock_wait

    @property
    def name(self) -> str:
        return self._url.database or ""

    @property
    def shown(self) -> str:
        return address.shown(self._url)

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self._administer(f"-c statement_timeout=0 -c lock_timeout={round(self._lock_wait * 1000)}") as admin:
            try:
                admin.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            except psycopg.errors.LockNotAvailable as error:
                raise LockHeld(
                    f"another migration of {self.shown} is at work, for {self._lock_wait:g} s now: "
                    "let it finish, then try again"
                ) from error
            yield  # closing the connection gives the lock back

    def prepare(self, secret: bytes | None) -> None:
        with self._administer() as admin, _refused(self.shown), admin.transaction():
            access.create_schemas_and_logins(admin, self.name, secret)

    def protect(self) -> None:
        with self._administer() as admin, _refused(self.shown), admin.transaction():
            if exposure.findings(admin, self.name):
                access.grant(admin, self.name)

    def exposures(self) -> list[str]:
        with self._administer() as admin:
            return exposure.findings(admin, self.name)

    def connect(self, context: str) -> AbstractContextManager[Connection]:
        engine = create_engine(
            self._url.set(drivername="postgresql+psycopg"),
            poolclass=NullPool,
            connect_args={
                "options": f"-c search_path={context} {_STEP_LIMITS}",
                "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
                "application_name": "baton-migrations",
            },
        )
        return connected(engine, self._url)

    def is_development(self) -> bool:
        # Read from the catalogue: `current_setting` could come from the URL or the user.
        with self._administer() as admin:
            found = admin.execute(
                "SELECT 1 FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase "
                "WHERE d.datname = current_database() AND s.setrole = 0 AND %s = ANY(s.setconfig)",
                [_MARK],
            )
            return found.fetchone() is not None

    def mark_development(self) -> None:
        statement = sql.SQL("ALTER DATABASE {} SET baton.environment = 'development'")
        with self._administer() as admin:
            try:
                admin.execute(statement.format(sql.Identifier(self.name)))
            except psycopg.errors.InsufficientPrivilege as error:
                raise NotDevelopment(
                    f"only a superuser, or one who may SET the parameter baton.environment, marks {self.shown} "
                    "as a development database"
                ) from error

    def drop_everything(self) -> None:
        with self._administer() as admin, admin.transaction():
            for context in CONTEXTS:
                admin.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(context)))

    @contextmanager
    def _administer(self, options: str = _STEP_LIMITS) -> Iterator[psycopg.Connection[Any]]:
        try:
            connection = psycopg.connect(
                self._url.render_as_string(hide_password=False),
                autocommit=True,
                options=options,
                connect_timeout=_CONNECT_TIMEOUT_SECONDS,
                application_name="baton-migrations",
            )
        except psycopg.Error as error:
            raise unreachable(self._url, error) from error
        with connection:
            yield connection


@contextmanager
def _refused(shown: str) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise MayNotPrepare(
            f"{error.diag.message_primary}: the user of {shown} may not set up schemas and logins. Either use an "
            "administrator's URL, or let an administrator run deploy/roles.sql with psql once, then try again"
        ) from error
