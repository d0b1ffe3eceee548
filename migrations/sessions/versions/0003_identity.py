"""Agents in full, archived ones among them, their secrets, tokens that rotate, and the outbox.

A service that was not replaced yet goes on but for creating agents, which it answers with an error: names are unique
among agents that are not archived, and it asks for more.
"""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Json, Timestamp

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _extend_agents()
    _extend_tokens()
    op.create_table(
        "agent_secrets",
        sa.Column("agent_id", Id, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", name="pk_agent_secrets"),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_agent_secrets_agent_id"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", Id, nullable=False),
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    # Last: SQLite makes a changed table anew, without its triggers.
    if op.get_bind().dialect.name == "postgresql":
        _keep_updated_at_on_postgres()
    else:
        _keep_updated_at_on_sqlite()


def _extend_agents() -> None:
    empty = sa.text("''")
    with op.batch_alter_table("agents") as agents:
        agents.add_column(sa.Column("model", sa.String(100), nullable=False, server_default=empty))
        agents.add_column(sa.Column("system_prompt", sa.Text(), nullable=False, server_default=empty))
        agents.add_column(sa.Column("webhook_url", sa.String(2048)))
        agents.add_column(sa.Column("status", sa.String(16), nullable=False, server_default=sa.text("'idle'")))
        agents.add_column(sa.Column("working_dir", sa.String(1024), nullable=False, server_default=empty))
        agents.add_column(sa.Column("git_worktree", sa.String(1024), nullable=False, server_default=empty))
        agents.add_column(sa.Column("session_id", sa.String(200)))
        agents.add_column(sa.Column("orchestrator_agent_id", Id))
        for counter in ("input_tokens", "output_tokens", "cost_microusd"):
            agents.add_column(sa.Column(counter, sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        agents.add_column(sa.Column("metadata", Json, nullable=False, server_default=sa.text("'{}'")))
        agents.add_column(sa.Column("archived_at", Timestamp))
        agents.add_column(sa.Column("version", sa.BigInteger(), nullable=False, server_default=sa.text("1")))
        agents.add_column(sa.Column("is_orchestrator", sa.Boolean(), nullable=False, server_default=sa.false()))
        agents.create_foreign_key("fk_agents_orchestrator_agent_id", "agents", ["orchestrator_agent_id"], ["id"])
        agents.create_check_constraint(
            "ck_agents_status", "status IN ('idle', 'executing', 'waiting', 'blocked', 'complete')"
        )
        agents.drop_constraint("uq_agents_name", type_="unique")
    _create_partial_index("ix_agents_live_name", "agents", "name", "archived_at IS NULL", unique=True)
    _create_partial_index(
        "ix_agents_live_orchestrator",
        "agents",
        "is_orchestrator",
        "is_orchestrator AND archived_at IS NULL",
        unique=True,
    )


def _extend_tokens() -> None:
    with op.batch_alter_table("tokens") as tokens:
        tokens.add_column(sa.Column("kind", sa.String(16), nullable=False, server_default=sa.text("'minted'")))
        tokens.add_column(sa.Column("family_id", Id))
        tokens.add_column(sa.Column("replaced_by", Id))
        tokens.add_column(sa.Column("created_by", Id))
        tokens.add_column(sa.Column("last_used_at", Timestamp))
        tokens.create_check_constraint("ck_tokens_kind", "kind IN ('minted', 'access', 'refresh')")
        tokens.create_check_constraint("ck_tokens_family_id", "(kind = 'minted') = (family_id IS NULL)")
    op.create_index("ix_tokens_agent_id", "tokens", ["agent_id", "id"])
    _create_partial_index("ix_tokens_family_id", "tokens", "family_id", "family_id IS NOT NULL")
    _create_partial_index("ix_tokens_expired", "tokens", "expires_at", "family_id IS NOT NULL")


def _create_partial_index(name: str, table: str, column: str, condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, [column], unique=unique, postgresql_where=where, sqlite_where=where)


def _keep_updated_at_on_postgres() -> None:
    op.execute("""
        CREATE FUNCTION keep_updated_at() RETURNS trigger LANGUAGE plpgsql SET search_path = sessions, pg_temp AS $$
        BEGIN
            NEW.updated_at := now();
            RETURN NEW;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER agents_updated_at BEFORE UPDATE ON agents FOR EACH ROW
        WHEN (NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at) EXECUTE FUNCTION keep_updated_at()
    """)


def _keep_updated_at_on_sqlite() -> None:
    op.execute("""
        CREATE TRIGGER agents_updated_at AFTER UPDATE ON agents FOR EACH ROW
        WHEN NEW.updated_at IS OLD.updated_at
        BEGIN
            UPDATE agents SET updated_at =
                CAST(strftime('%s', 'now') AS INTEGER) * 1000000
                + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000
            WHERE id = NEW.id;
        END
    """)
