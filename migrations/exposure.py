"""Whether access on PostgreSQL is as `access` promises, asked of the server itself."""

from typing import Any

from psycopg import Connection

from migrations.contexts import CONTEXTS
from migrations.logins import login

_ROWS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_ROLES = """
SELECT rolname FROM pg_roles WHERE rolname = ANY(%(logins)s)
"""
_POWERS = """
SELECT rolname, power FROM pg_roles, LATERAL (VALUES
    (rolsuper, 'is a superuser'), (rolcreaterole, 'may create roles'), (rolcreatedb, 'may create databases'),
    (rolbypassrls, 'bypasses row security'), (rolreplication, 'may replicate'),
    (EXISTS (SELECT 1 FROM pg_auth_members WHERE member = pg_roles.oid), 'is a member of another role')
) AS powers(has, power)
WHERE rolname = ANY(%(logins)s) AND has
"""
_ON_DATABASE = """
SELECT rolname, privilege, 'the database' FROM pg_roles, unnest(ARRAY['CONNECT', 'CREATE', 'TEMPORARY']) privilege
WHERE rolname = ANY(%(logins)s) AND has_database_privilege(oid, current_database(), privilege)
"""
_ON_SCHEMAS = """
SELECT rolname, privilege, 'schema ' || nspname
FROM pg_roles r, pg_namespace n, unnest(ARRAY['USAGE', 'CREATE']) privilege
WHERE rolname = ANY(%(logins)s) AND has_schema_privilege(r.oid, n.oid, privilege)
    AND (nspname = ANY(%(schemas)s) OR nspname = 'public' AND privilege = 'CREATE')
"""
_ON_TABLES = """
SELECT rolname, privilege, nspname || '.' || relname
FROM pg_roles r, pg_class c JOIN pg_namespace n ON n.oid = relnamespace,
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) privilege
WHERE rolname = ANY(%(logins)s) AND nspname = ANY(%(schemas)s) AND relkind IN ('r', 'p', 'v', 'm', 'f')
    AND has_table_privilege(r.oid, c.oid, privilege)
"""
_ON_FUNCTIONS = """
SELECT rolname, 'EXECUTE', 'function ' || nspname || '.' || proname
FROM pg_roles r, pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
WHERE rolname = ANY(%(logins)s) AND nspname = ANY(%(schemas)s) AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
"""
_FUNCTIONS = """
SELECT nspname, proname FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = ANY(%(schemas)s)
"""
_TABLES = """
SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = ANY(%(schemas)s) AND relkind IN ('r', 'p', 'v', 'm', 'f')
"""

_Privilege = tuple[str, str, str]
"""A login, a privilege, and what it is on."""


def findings(connection: Connection[Any], database: str) -> list[str]:
    """Each login that is missing, can too much or too little, in words; nothing when all is as promised."""
    logins = {context: login(database, context) for context in CONTEXTS}
    asked = {"logins": list(logins.values()), "schemas": list(CONTEXTS)}
    present = {row[0] for row in connection.execute(_ROLES, asked)}
    missing = [f"the login {name} is missing" for name in logins.values() if name not in present]
    powers = [f"{name} {power}" for name, power in connection.execute(_POWERS, asked)]
    queries = (_ON_DATABASE, _ON_SCHEMAS, _ON_TABLES, _ON_FUNCTIONS)
    held = {row for query in queries for row in connection.execute(query, asked)}
    tables, functions = (connection.execute(query, asked).fetchall() for query in (_TABLES, _FUNCTIONS))
    promised = {row for row in _promised(logins, tables, functions) if row[0] in present}
    too_much = [f"{name} has {privilege} on {thing}, and should not" for name, privilege, thing in held - promised]
    too_little = [f"{name} lacks {privilege} on {thing}" for name, privilege, thing in promised - held]
    return missing + powers + sorted(too_much) + sorted(too_little)


def _promised(
    logins: dict[str, str], tables: list[tuple[str, str]], functions: list[tuple[str, str]]
) -> set[_Privilege]:
    promised = {(logins[schema], "EXECUTE", f"function {schema}.{function}") for schema, function in functions}
    for context, name in logins.items():
        promised |= {(name, "CONNECT", "the database"), (name, "USAGE", f"schema {context}")}
    for schema, table in tables:
        privileges = ("SELECT",) if table == "alembic_version" else _ROWS
        promised |= {(logins[schema], privilege, f"{schema}.{table}") for privilege in privileges}
    return promised
