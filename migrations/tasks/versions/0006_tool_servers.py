"""Tool servers that are described, disabled, guarded by scopes and read from a file; what workers say of them."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Json, Timestamp

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for column in (
        sa.Column("description", sa.String(1000), nullable=False, server_default=sa.text("''")),
        sa.Column("enabled", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("scopes", Json, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("last_error", sa.String(500), nullable=False, server_default=sa.text("''")),
        sa.Column("last_error_at", Timestamp),
    ):
        op.add_column("tool_servers", column)
    # In one statement with its check, which SQLite adds in no other way.
    op.execute("""
        ALTER TABLE tool_servers ADD COLUMN managed_by VARCHAR(8) DEFAULT 'api' NOT NULL
        CONSTRAINT ck_tool_servers_managed_by CHECK (managed_by IN ('api', 'file'))
    """)
    op.add_column("tools", sa.Column("output_schema", Json))
