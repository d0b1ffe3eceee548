"""The tables of the sessions context."""

from sqlalchemy import Column, ForeignKey, LargeBinary, String, Table, text

from services.chassis.answers import idempotency_table
from services.chassis.columns import Id, Json, Timestamp, new_metadata

metadata = new_metadata()

idempotency_keys = idempotency_table(metadata)

agents = Table(
    "agents",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("scopes", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("role", String(50), nullable=False, server_default=text("''")),
)

# Of the token itself only its SHA-256 is here.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Id, primary_key=True),
    Column("key_id", String(32), nullable=False, unique=True),
    Column("agent_id", Id, ForeignKey("agents.id"), nullable=False),
    Column("secret_hash", LargeBinary(32), nullable=False),
    Column("scopes", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("revoked_at", Timestamp),
)
