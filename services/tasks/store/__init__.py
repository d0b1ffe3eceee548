"""The SQL of the tasks context, for PostgreSQL and SQLite alike."""
