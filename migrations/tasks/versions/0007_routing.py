"""An index of tasks by their role."""

from alembic import op

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    op.create_index("ix_tasks_role", "tasks", ["role", "id"])
