"""What the workflows service is told by its environment."""

from dataclasses import dataclass
from pathlib import Path

from services.chassis.config import setting


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that the service needs."""

    database_url: str = setting("BATON_DATABASE_URL", help="the database of workflows, as an SQLAlchemy URL")
    jwks_file: Path = setting("BATON_JWKS_FILE", help="the public keys (JWKS) to verify access tokens with")
    cursor_key_file: Path = setting("BATON_CURSOR_KEY_FILE", help="the secret that cursors are signed with")
    listen: str = setting("BATON_LISTEN", default="127.0.0.1:7003", help="host:port or unix:/path to serve gRPC on")
    pool_size: int = setting("BATON_DATABASE_POOL_SIZE", default=8, help="connections to the database, and threads")
    sessions_address: str | None = setting(
        "BATON_SESSIONS_ADDRESS",
        default=None,
        help="host:port or unix:/path of the sessions service, which keeps the audit; without it entries wait here",
    )
    tasks_address: str | None = setting(
        "BATON_TASKS_ADDRESS",
        default=None,
        help="host:port or unix:/path of the tasks service, which hears of events here; without it they wait here",
    )
    services_token_file: Path | None = setting(
        "BATON_SERVICES_TOKEN_FILE",
        default=None,
        help="file with the token under which services call each other; its agent needs the scope messages:deliver",
    )
    idempotency_ttl_seconds: int = setting(
        "IDEMPOTENCY_TTL_SECONDS", default=86_400, help="how long the answer to a request_id is remembered"
    )
