"""The schemas of all contexts: one Alembic history each, on PostgreSQL and SQLite."""
