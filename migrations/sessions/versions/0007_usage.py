"""What agents have used, and what they may."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Timestamp

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    _create_calls()
    _create_days()
    _create_budgets()


def _amounts() -> list[sa.Column[int]]:
    names = ("input_tokens", "output_tokens", "cached_tokens", "cost_microusd", "tool_calls", "wall_time_ms")
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _create_calls() -> None:
    table = "usage_calls"
    op.create_table(
        table,
        sa.Column("id", Id, nullable=False),
        sa.Column("agent_id", Id, nullable=False),
        sa.Column("session_id", Id),
        sa.Column("run_id", Id),
        sa.Column("model", sa.String(100), nullable=False),
        *_amounts(),
        sa.Column("occurred_at", Timestamp, nullable=False),
        sa.Column("recorded_by", Id, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_calls"),
    )
    op.create_index("ix_usage_calls_agent_id", table, ["agent_id", "id"])
    op.create_index("ix_usage_calls_model", table, ["model", "id"])
    for column in ("session_id", "run_id"):
        _index_where(f"{column} IS NOT NULL", f"ix_usage_calls_{column}", table, [column, "id"])


def _create_days() -> None:
    table = "usage_days"
    op.create_table(
        table,
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("agent_id", Id, nullable=False),
        sa.Column("session_id", Id, nullable=False),
        sa.Column("model", sa.String(100), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        *_amounts(),
        sa.PrimaryKeyConstraint("day", "agent_id", "session_id", "model", name="pk_usage_days"),
    )
    op.create_index("ix_usage_days_agent_id", table, ["agent_id", "day"])
    op.create_index("ix_usage_days_session_id", table, ["session_id", "day"])


def _create_budgets() -> None:
    table = "budgets"
    op.create_table(
        table,
        sa.Column("id", Id, nullable=False),
        sa.Column("agent_id", Id),
        sa.Column("session_id", Id),
        sa.Column("metric", sa.String(16), nullable=False),
        sa.Column("period", sa.String(8), nullable=False),
        sa.Column("soft_limit", sa.BigInteger()),
        sa.Column("hard_limit", sa.BigInteger()),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("period_start", Timestamp, nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budgets"),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_budgets_agent_id"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_budgets_session_id"),
        sa.CheckConstraint("(agent_id IS NULL) <> (session_id IS NULL)", name=op.f("ck_budgets_subject")),
        sa.CheckConstraint(
            "metric IN ('tokens', 'cost_microusd', 'tool_calls', 'wall_time_ms')", name=op.f("ck_budgets_metric")
        ),
        sa.CheckConstraint("period IN ('total', 'day', 'month')", name=op.f("ck_budgets_period")),
        sa.CheckConstraint("soft_limit IS NOT NULL OR hard_limit IS NOT NULL", name=op.f("ck_budgets_limits")),
    )
    for column in ("agent_id", "session_id"):
        _index_where(f"{column} IS NOT NULL", f"uq_budgets_{column}", table, [column, "metric", "period"], unique=True)


def _index_where(condition: str, name: str, table: str, columns: list[str], *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, postgresql_where=where, sqlite_where=where)
