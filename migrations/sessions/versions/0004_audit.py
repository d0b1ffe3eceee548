"""The audit: entries that seal each other and are never changed, and where their chain ends."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Timestamp

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    table = "audit_entries"
    op.create_table(
        table,
        sa.Column("sequence", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("id", Id, nullable=False),
        sa.Column("occurred_at", Timestamp, nullable=False),
        sa.Column("recorded_at", Timestamp, nullable=False),
        sa.Column("context", sa.String(20), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(100), nullable=False),
        sa.Column("resource", sa.String(200), nullable=False),
        sa.Column("before", sa.Text()),
        sa.Column("after", sa.Text()),
        sa.Column("before_digest", sa.String(64), nullable=False),
        sa.Column("after_digest", sa.String(64), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("request_id", sa.String(255), nullable=False),
        sa.Column("trace_id", sa.String(32), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_entries"),
    )
    op.create_index("uq_audit_entries_id", table, ["id"], unique=True)
    for column in ("actor", "action", "resource"):
        op.create_index(f"ix_audit_entries_{column}", table, [column, "sequence"])
    op.create_index("ix_audit_entries_occurred_at", table, ["occurred_at"])
    for column in ("trace_id", "run_id", "request_id"):
        given = sa.text(f"{column} <> ''")
        op.create_index(
            f"ix_audit_entries_{column}", table, [column, "sequence"], postgresql_where=given, sqlite_where=given
        )
    heads = op.create_table(
        "audit_head",
        sa.Column("id", sa.SmallInteger(), nullable=False, autoincrement=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_head_id")),
    )
    op.bulk_insert(heads, [{"id": 1, "sequence": 0, "hash": "0" * 64, "seal": ""}])
    if op.get_bind().dialect.name == "postgresql":
        _guard_on_postgres()
    else:
        _guard_on_sqlite()


def _guard_on_postgres() -> None:
    op.execute("""
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = sessions, pg_temp AS $$
        BEGIN
            RAISE EXCEPTION 'audit entries are never changed or removed';
        END
        $$
    """)
    for changes, each in (("UPDATE OR DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
        op.execute(f"""
            CREATE TRIGGER audit_entries_no_{changes.split()[0].lower()} BEFORE {changes} ON audit_entries
            FOR EACH {each} EXECUTE FUNCTION refuse_change()
        """)


def _guard_on_sqlite() -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(f"""
            CREATE TRIGGER audit_entries_no_{change.lower()} BEFORE {change} ON audit_entries
            BEGIN
                SELECT RAISE(ABORT, 'audit entries are never changed or removed');
            END
        """)
