"""What an agent works as."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("agents", sa.Column("role", sa.String(50), nullable=False, server_default=sa.text("''")))
