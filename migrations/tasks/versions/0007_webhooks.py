"""Webhooks, the topics that they are for, and what is delivered to them."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Timestamp

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    _create_webhooks()
    _create_webhook_deliveries()


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", Id, nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("description", sa.String(500), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("secret", sa.String(128), nullable=False),
        sa.Column("previous_secret", sa.String(128)),
        sa.Column("previous_secret_until", Timestamp),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
        _check("webhooks", "previous_secret", "(previous_secret IS NULL) = (previous_secret_until IS NULL)"),
    )
    op.create_table(
        "webhook_topics",
        sa.Column("webhook_id", Id, nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("pattern", sa.String(100), nullable=False),
        sa.Column("topic_key", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("webhook_id", "position", name="pk_webhook_topics"),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name="fk_webhook_topics_webhook_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_webhook_topics_topic_key", "webhook_topics", ["topic_key", "pattern"])


def _create_webhook_deliveries() -> None:
    table = "webhook_deliveries"
    op.create_table(
        table,
        sa.Column("id", Id, nullable=False),
        sa.Column("webhook_id", Id, nullable=False),
        sa.Column("event_id", Id, nullable=False),
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("next_attempt_at", Timestamp),
        sa.Column("lease_token", Id),
        sa.Column("last_status", sa.SmallInteger()),
        sa.Column("last_error", sa.String(500), nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("delivered_at", Timestamp),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name="fk_webhook_deliveries_event_id"),
        _check(table, "status", "status IN ('pending', 'delivered', 'dead')"),
        _check(table, "next_attempt_at", "(status = 'pending') = (next_attempt_at IS NOT NULL)"),
        _check(table, "lease_token", "lease_token IS NULL OR status = 'pending'"),
        _check(table, "delivered_at", "(status = 'delivered') = (delivered_at IS NOT NULL)"),
    )
    op.create_index("uq_webhook_deliveries_event_id", table, ["event_id", "webhook_id"], unique=True)
    pending = sa.text("status = 'pending'")
    op.create_index(
        "ix_webhook_deliveries_due",
        table,
        ["webhook_id", "next_attempt_at", "id"],
        postgresql_where=pending,
        sqlite_where=pending,
    )
    op.create_index("ix_webhook_deliveries_webhook_id", table, ["webhook_id", "id"])
    op.create_index("ix_webhook_deliveries_status", table, ["webhook_id", "status", "id"])


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))
