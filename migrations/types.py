"""Column types as the revisions know them: frozen, so that an old revision makes the same table for ever."""

from sqlalchemy import JSON, BigInteger, Uuid
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

Id = Uuid()
"""uuid on PostgreSQL, CHAR(32) on SQLite."""

Json = JSON().with_variant(JSONB(), "postgresql")
"""jsonb on PostgreSQL, JSON (text) on SQLite."""

Timestamp = BigInteger().with_variant(TIMESTAMP(timezone=True), "postgresql")
"""timestamptz on PostgreSQL, microseconds since 1970 on SQLite."""
