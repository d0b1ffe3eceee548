"""Who may do what on PostgreSQL: each context's login works in its own schema and sees no other.

The tables belong to the user that migrates, so a service can read and write rows but not change a table. What a
service must change all the same, the partitions of a table, it changes through functions with that user's rights.
`deploy/roles.sql` does the same by hand.
"""

from typing import Any

from psycopg import Connection, sql

from migrations.contexts import CONTEXTS
from migrations.logins import login, password

_OWN = (
    "REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {login}",
    "REVOKE ALL ON SCHEMA {schema} FROM {login}",
    "GRANT USAGE ON SCHEMA {schema} TO {login}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {login}",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {login}",
    "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {login}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {login}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE ON SEQUENCES TO {login}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT EXECUTE ON FUNCTIONS TO {login}",
)
_OTHERS = (
    "REVOKE ALL ON SCHEMA {schema} FROM PUBLIC, {others}",
    "REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC, {others}",
    "REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schema} FROM PUBLIC, {others}",
    "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC, {others}",
)
_DATABASE = (
    "REVOKE CREATE, TEMPORARY ON DATABASE {database} FROM PUBLIC, {logins}",
    "GRANT CONNECT ON DATABASE {database} TO {logins}",
)


def create_schemas_and_logins(connection: Connection[Any], database: str, secret: bytes | None) -> None:
    """Makes the schemas and logins that are missing, and with a `secret` sets every login's password.

    Raises psycopg's InsufficientPrivilege. What exists is not asked for again, so that a user who may create
    neither can migrate once an administrator has created both.
    """
    for context in CONTEXTS:
        name = login(database, context)
        if not _exists(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", name):
            _execute(connection, "CREATE ROLE {login} LOGIN", login=sql.Identifier(name))
        if secret is not None:
            _set_password(connection, name, password(secret, name))
        if not _exists(connection, "SELECT 1 FROM pg_namespace WHERE nspname = %s", context):
            _execute(connection, "CREATE SCHEMA {schema}", schema=sql.Identifier(context))


def grant(connection: Connection[Any], database: str) -> None:
    """Gives each login what it needs, now and for tables to come, and takes everything else from everyone."""
    logins = {context: sql.Identifier(login(database, context)) for context in CONTEXTS}
    for context, own in logins.items():
        others = sql.SQL(", ").join(name for other, name in logins.items() if other != context)
        for statement in (*_OTHERS, *_OWN):
            _execute(connection, statement, schema=sql.Identifier(context), login=own, others=others)
        _protect_ledger(connection, context, own)
    if _exists(connection, "SELECT 1 FROM pg_database WHERE datname = %s AND pg_has_role(datdba, 'USAGE')", database):
        for statement in _DATABASE:
            everyone = sql.SQL(", ").join(logins.values())
            _execute(connection, statement, database=sql.Identifier(database), logins=everyone)
    _close_public_schema(connection)


def _protect_ledger(connection: Connection[Any], context: str, own: sql.Identifier) -> None:
    """A service may read how far its schema is, not claim something else."""
    if _exists(connection, "SELECT 1 WHERE to_regclass(format('%%I.alembic_version', %s::text)) IS NOT NULL", context):
        statement = "REVOKE INSERT, UPDATE, DELETE ON {schema}.alembic_version FROM {login}"
        _execute(connection, statement, schema=sql.Identifier(context), login=own)


def _close_public_schema(connection: Connection[Any]) -> None:
    """Before PostgreSQL 15 everyone could create tables in `public`."""
    ours = "SELECT 1 FROM pg_namespace WHERE nspname = %s AND pg_has_role(nspowner, 'USAGE')"
    if _exists(connection, ours, "public"):
        _execute(connection, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")


def _set_password(connection: Connection[Any], name: str, password: str) -> None:
    """Sends the SCRAM verifier: the password itself reaches neither the server nor its log."""
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    _execute(connection, "ALTER ROLE {login} PASSWORD {verifier}", login=sql.Identifier(name), verifier=verifier)


def _exists(connection: Connection[Any], query: str, argument: str) -> bool:
    return connection.execute(query.encode(), [argument]).fetchone() is not None


def _execute(connection: Connection[Any], statement: str, **names: sql.Composable | str) -> None:
    connection.execute(sql.SQL(statement).format(**names))
