"""What the sessions service is told by its environment."""

from dataclasses import dataclass
from pathlib import Path

from services.chassis.config import setting
from services.chassis.egress import allowed


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """Where the context's tables are; all that `bootstrap` needs."""

    database_url: str = setting("BATON_DATABASE_URL", help="the database of sessions, as an SQLAlchemy URL")
    pool_size: int = setting("BATON_DATABASE_POOL_SIZE", default=8, help="connections to the database, and threads")


@dataclass(frozen=True, kw_only=True)
class Settings(DatabaseSettings):
    """All that the service needs."""

    signing_key_file: Path = setting(
        "BATON_SIGNING_KEY_FILE", help="the private Ed25519 key (JWK) that signs access tokens; made when missing"
    )
    jwks_file: Path = setting(
        "BATON_JWKS_FILE", help="the public key (JWKS) that all services verify access tokens with; made when missing"
    )
    audit_key_file: Path = setting(
        "BATON_AUDIT_KEY_FILE", help="the secret that seals the audit, 32 bytes; made when missing, and never changed"
    )
    cursor_key_file: Path = setting("BATON_CURSOR_KEY_FILE", help="the secret that cursors are signed with")
    listen: str = setting("BATON_LISTEN", default="127.0.0.1:7001", help="host:port or unix:/path to serve gRPC on")
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
    log_retention_days: int = setting(
        "BATON_LOG_RETENTION_DAYS", default=90, help="how long logs, prompts, chat and usage are kept; 0 is for ever"
    )
    session_retention_days: int = setting(
        "SESSION_RETENTION_DAYS",
        default=7,
        help="after how many days without activity a session expires, up to 36500; 0 is never",
    )
    egress_allow: str = setting(allowed.VARIABLE, default="", help=allowed.HELP)
    idempotency_ttl_seconds: int = setting(
        "IDEMPOTENCY_TTL_SECONDS", default=86_400, help="how long the answer to a request_id is remembered"
    )
