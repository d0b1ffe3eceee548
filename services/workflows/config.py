"""What the workflows service is told by its environment."""

from dataclasses import dataclass
from pathlib import Path

from services.chassis.config import setting


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that the service needs."""

    database_url: str = setting("BATON_DATABASE_URL", help="the database of workflows, as an SQLAlchemy URL")
    jwks_file: Path = setting("BATON_JWKS_FILE", help="the public keys (JWKS) to verify access tokens with")
    listen: str = setting("BATON_LISTEN", default="127.0.0.1:7003", help="host:port or unix:/path to serve gRPC on")
    pool_size: int = setting("BATON_DATABASE_POOL_SIZE", default=8, help="connections to the database, and threads")
