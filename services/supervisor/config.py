"""What one machine's Baton is told by its environment."""

import logging
from dataclasses import dataclass
from pathlib import Path

from services.chassis.config import ConfigurationError, setting

_MOST_GATEWAYS = 64


@dataclass(frozen=True)
class Settings:
    """Filled from the environment by `chassis.config.load`."""

    home: Path = setting("BATON_HOME", default=Path(".baton"), help="where keys, tokens, logs and databases are")
    port: int = setting("BATON_PORT", default=8080, help="the port of the gateway")
    db: str = setting("DB", default="sqlite", help="the embedded database: sqlite or postgres")
    database_url: str = setting("DATABASE_URL", default="", help="a PostgreSQL server to use instead")
    worker_grace_seconds: float = setting(
        "BATON_WORKER_GRACE_SECONDS",
        default=20.0,
        help="how long runs may go on after a stop before they are given back",
    )
    gateway_workers: int = setting(
        "BATON_GATEWAY_WORKERS", default=1, help="how many gateways share the port, up to 64"
    )
    log_level: str = setting("BATON_LOG_LEVEL", default="INFO", help="what goes to the logs")
    demo: bool = setting("BATON_DEMO", default=True, help="whether an empty home gets the demo")

    def check(self) -> None:
        """Raises ConfigurationError."""
        if not 1 <= self.port <= 65535:
            raise ConfigurationError(f"BATON_PORT is {self.port}: use a port from 1 to 65535")
        if not 1 <= self.gateway_workers <= _MOST_GATEWAYS:
            raise ConfigurationError(
                f"BATON_GATEWAY_WORKERS is {self.gateway_workers}: use a number from 1 to {_MOST_GATEWAYS}"
            )
        if self.log_level.upper() not in logging.getLevelNamesMapping():
            raise ConfigurationError(f"BATON_LOG_LEVEL is {self.log_level!r}: use DEBUG, INFO, WARNING or ERROR")
        if self.db not in ("sqlite", "postgres"):
            raise ConfigurationError(f"DB is {self.db!r}: use sqlite or postgres")
        if self.database_url and not self.database_url.startswith("postgresql://"):
            raise ConfigurationError("DATABASE_URL must begin with postgresql://")
