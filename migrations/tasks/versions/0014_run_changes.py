"""Which runs have changed is noted for as long as somebody watches."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Timestamp

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    is_postgres = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "run_changes",
        sa.Column("position", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("run_id", Id, nullable=False),
        sa.PrimaryKeyConstraint("position", "run_id", name="pk_run_changes"),
    )
    op.create_table(
        "run_watch",
        sa.Column("id", sa.SmallInteger(), nullable=False, autoincrement=False),
        sa.Column("until", Timestamp, nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_run_watch"),
        sa.CheckConstraint("id = 1", name="ck_run_watch_id"),
    )
    # 1970, in either engine's form.
    beginning = "'epoch'" if is_postgres else "0"
    op.execute(f"INSERT INTO run_watch (id, until, since, position) VALUES (1, {beginning}, 0, 0)")
    if is_postgres:
        _note_on_postgres()
    else:
        _note_on_sqlite()


def _note_on_postgres() -> None:
    """Once for each statement, which costs next to nothing while nobody watches. An extended lease is no change."""
    op.execute("""
        CREATE FUNCTION note_changed_runs() RETURNS trigger LANGUAGE plpgsql SET search_path = tasks, pg_temp AS $$
        BEGIN
            IF EXISTS (SELECT FROM run_watch WHERE until > (SELECT max(updated_at) FROM after)) THEN
                IF TG_OP = 'INSERT' THEN
                    INSERT INTO run_changes SELECT DISTINCT pg_current_xact_id()::text::bigint, id FROM after
                    ON CONFLICT DO NOTHING;
                ELSE
                    INSERT INTO run_changes SELECT pg_current_xact_id()::text::bigint, after.id
                    FROM after JOIN before USING (id)
                    WHERE (after.updated_at, after.lease_token, after.reported_status)
                        IS DISTINCT FROM (before.updated_at, before.lease_token, before.reported_status)
                    ON CONFLICT DO NOTHING;
                END IF;
            END IF;
            RETURN NULL;
        END
        $$
    """)
    note = "FOR EACH STATEMENT EXECUTE FUNCTION note_changed_runs()"
    for table in ("runs", "run_history"):
        op.execute(f"CREATE TRIGGER {table}_added AFTER INSERT ON {table} REFERENCING NEW TABLE AS after {note}")
    op.execute(
        f"CREATE TRIGGER runs_changed AFTER UPDATE ON runs REFERENCING OLD TABLE AS before NEW TABLE AS after {note}"
    )


def _note_on_sqlite() -> None:
    note = (
        "BEGIN UPDATE run_watch SET position = position + 1; "
        "INSERT INTO run_changes SELECT position, NEW.id FROM run_watch; END"
    )
    watched = "EXISTS (SELECT 1 FROM run_watch WHERE until > NEW.updated_at)"
    for table in ("runs", "run_history"):
        op.execute(f"CREATE TRIGGER {table}_added AFTER INSERT ON {table} WHEN {watched} {note}")
    columns = ("updated_at", "lease_token", "reported_status")
    differs = " OR ".join(f"NEW.{column} IS NOT OLD.{column}" for column in columns)
    op.execute(
        f"CREATE TRIGGER runs_changed AFTER UPDATE OF {', '.join(columns)} ON runs "
        f"WHEN ({differs}) AND {watched} {note}"
    )
