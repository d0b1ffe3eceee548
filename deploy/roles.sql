-- The schemas and logins that `python -m migrations upgrade` makes by itself when its user may create roles.
-- Where that user may not, an administrator runs this once in Baton's database; it can be run again:
--
--   psql "$ADMIN_URL" -v migrator=baton -f deploy/roles.sql
--
-- `migrator` is the user that will run `python -m migrations`: it owns the schemas and tables. For each context
-- there is a login <database>_<context>. Give each a password with \password and its service the URL to match.

\set ON_ERROR_STOP on
BEGIN;

CREATE TEMPORARY TABLE contexts ON COMMIT DROP AS
SELECT context, current_database() || '_' || context AS login
FROM unnest(ARRAY['sessions', 'tasks', 'workflows']) AS context;

SELECT format('CREATE ROLE %I LOGIN', login) FROM contexts
WHERE login NOT IN (SELECT rolname FROM pg_roles)
\gexec

SELECT format('CREATE SCHEMA %I AUTHORIZATION %I', context, :'migrator') FROM contexts
WHERE context NOT IN (SELECT nspname FROM pg_namespace)
\gexec

-- A login works in its own schema; the tables' owner alone may change a table.
SELECT format('GRANT USAGE ON SCHEMA %I TO %I', context, login) FROM contexts
\gexec
SELECT format(
    'ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO %I',
    :'migrator', context, login
) FROM contexts
\gexec
SELECT format(
    'ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT USAGE ON SEQUENCES TO %I',
    :'migrator', context, login
) FROM contexts
\gexec

SELECT format(
    'ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT EXECUTE ON FUNCTIONS TO %I',
    :'migrator', context, login
) FROM contexts
\gexec

-- It may enter the database, and make nothing there.
SELECT format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database())
\gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login) FROM contexts
\gexec
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

COMMIT;
