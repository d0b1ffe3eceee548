"""Events remember the message of a stream that they were made of, so that none becomes two."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("events", sa.Column("source_key", sa.String(160)))
    where = sa.text("source_key IS NOT NULL")
    op.create_index(
        "ix_events_source_key", "events", ["source_key"], unique=True, postgresql_where=where, sqlite_where=where
    )
