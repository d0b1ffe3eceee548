"""The settings of the tasks service."""

from dataclasses import dataclass
from pathlib import Path

from services.chassis.config import setting
from services.chassis.egress import allowed


@dataclass(frozen=True)
class Settings:
    """Filled from the environment by `chassis.config.load`."""

    database_url: str = setting("BATON_DATABASE_URL", help="where this context's tables are, as an SQLAlchemy URL")
    jwks_file: Path = setting("BATON_JWKS_FILE", help="the public keys that access tokens are checked with")
    cursor_key_file: Path = setting("BATON_CURSOR_KEY_FILE", help="the secret that cursors are signed with")
    listen: str = setting("BATON_LISTEN", default="127.0.0.1:7002", help="host:port or unix:/path to serve gRPC on")
    pool_size: int = setting("BATON_DATABASE_POOL_SIZE", default=8, help="database connections and threads")
    default_timezone: str = setting("BATON_DEFAULT_TIMEZONE", default="UTC", help="of tasks that name none")
    event_stream_url: str | None = setting(
        "EVENT_STREAM_URL", default=None, help="the Redis or Valkey server with a stream of messages to publish"
    )
    event_stream_key: str = setting("BATON_EVENT_STREAM_KEY", default="events", help="the stream's key")
    event_stream_group: str = setting("BATON_EVENT_STREAM_GROUP", default="baton", help="the consumer group's name")
    event_stream_agent: str | None = setting(
        "BATON_EVENT_STREAM_AGENT", default=None, help="the id of the agent who publishes what the stream brings"
    )
    event_stream_claim_seconds: float = setting(
        "BATON_EVENT_STREAM_CLAIM_SECONDS", default=60.0, help="after how long a silent consumer is taken for dead"
    )
    retention_days: int = setting(
        "BATON_RETENTION_DAYS", default=0, help="how long finished runs are kept; 0 is for ever"
    )
    sessions_address: str | None = setting(
        "BATON_SESSIONS_ADDRESS",
        default=None,
        help="host:port or unix:/path of the sessions service, which keeps the audit; without it the audit waits here",
    )
    workflows_address: str | None = setting(
        "BATON_WORKFLOWS_ADDRESS",
        default=None,
        help="host:port or unix:/path of the workflows service, which hears what became of the runs that it has asked "
        "for; without it that waits here",
    )
    services_token_file: Path | None = setting(
        "BATON_SERVICES_TOKEN_FILE",
        default=None,
        help="file with the token under which services call each other; its agent needs the scope messages:deliver",
    )
    egress_allow: str = setting(allowed.VARIABLE, default="", help=allowed.HELP)
    tool_servers_file: Path | None = setting(
        "BATON_TOOL_SERVERS_FILE", default=None, help="YAML or JSON file that lists tool servers; read at the start"
    )
    idempotency_ttl_seconds: int = setting(
        "IDEMPOTENCY_TTL_SECONDS", default=86_400, help="how long an answer is remembered by its key"
    )
