"""The runs that workflows ask for know of which hand-off they are."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    for table in ("runs", "run_history"):
        op.add_column(table, sa.Column("handoff_id", Id))
