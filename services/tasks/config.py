"""The settings of the tasks service."""

from dataclasses import dataclass
from pathlib import Path

from services.chassis.config import setting


@dataclass(frozen=True)
class Settings:
    """Filled from the environment by `chassis.config.load`."""

    database_url: str = setting("BATON_DATABASE_URL", help="where this context's tables are, as an SQLAlchemy URL")
    jwks_file: Path = setting("BATON_JWKS_FILE", help="the public keys that access tokens are checked with")
    cursor_key_file: Path = setting("BATON_CURSOR_KEY_FILE", help="the secret that cursors are signed with")
    listen: str = setting("BATON_LISTEN", default="127.0.0.1:7002", help="address to serve gRPC on")
    pool_size: int = setting("BATON_DATABASE_POOL_SIZE", default=8, help="database connections and threads")
    default_timezone: str = setting("BATON_DEFAULT_TIMEZONE", default="UTC", help="of tasks that name none")
    retention_days: int = setting(
        "BATON_RETENTION_DAYS", default=0, help="how long finished runs are kept; 0 is for ever"
    )
    tool_servers_file: Path | None = setting(
        "BATON_TOOL_SERVERS_FILE", default=None, help="YAML or JSON file that lists tool servers; read at the start"
    )
    idempotency_ttl_seconds: int = setting(
        "IDEMPOTENCY_TTL_SECONDS", default=86_400, help="how long an answer is remembered by its key"
    )
