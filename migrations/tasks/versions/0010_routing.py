"""An index of tasks by their role."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_index("ix_tasks_role", "tasks", ["role", "id"])
