"""The items of steps, how often a step was tried, and files for large outputs."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Json, Timestamp

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("run_steps", sa.Column("tries", sa.SmallInteger(), nullable=False, server_default="1"))
    op.add_column("run_steps", sa.Column("output_uri", sa.String(512)))
    op.add_column("run_steps", sa.Column("items_total", sa.Integer()))
    op.add_column("run_steps", sa.Column("items_failed", sa.Integer()))
    op.create_table(
        "run_step_items",
        sa.Column("run_id", Id, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.Column("step_id", sa.String(64), nullable=False),
        sa.Column("uses", sa.String(200), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("input_digest", sa.String(64), nullable=False),
        sa.Column("output", Json),
        sa.Column("error", Json),
        sa.Column("started_at", Timestamp, nullable=False),
        sa.Column("finished_at", Timestamp, nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("span_id", sa.String(16), nullable=False),
        sa.Column("tries", sa.SmallInteger(), nullable=False, server_default="1"),
        sa.Column("output_uri", sa.String(512)),
        sa.PrimaryKeyConstraint("run_id", "position", "item", name="pk_run_step_items"),
        sa.CheckConstraint("status IN ('succeeded', 'failed', 'skipped')", name=op.f("ck_run_step_items_status")),
    )
    op.create_table(
        "files",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_files"),
    )
    op.create_index("ix_files_stored_at", "files", ["stored_at"])
    for table in ("run_steps", "run_step_items"):
        op.create_index(
            f"ix_{table}_output_uri",
            table,
            ["output_uri"],
            postgresql_where=sa.text("output_uri IS NOT NULL"),
            sqlite_where=sa.text("output_uri IS NOT NULL"),
        )
