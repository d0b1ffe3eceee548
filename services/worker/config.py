"""What the worker reads from its environment."""

import math
from dataclasses import dataclass
from pathlib import Path

from services.chassis.config import ConfigurationError, setting

MAX_CONCURRENCY = 100


@dataclass(frozen=True)
class Settings:
    """Raises ConfigurationError for numbers that are out of bounds."""

    tasks_address: str = setting("BATON_TASKS_ADDRESS", help="host:port of the tasks service")
    sessions_address: str = setting("BATON_SESSIONS_ADDRESS", help="host:port of the sessions service")
    token_file: Path = setting(
        "BATON_WORKER_TOKEN_FILE",
        help="file with the worker's token; its agent needs the scopes runs:work and tools:admin",
    )
    concurrency: int = setting("BATON_WORKER_CONCURRENCY", default=10, help=f"runs at one time, 1..{MAX_CONCURRENCY}")
    grace_seconds: float = setting(
        "BATON_WORKER_GRACE_SECONDS",
        default=20.0,
        help="how many seconds, 0 or more, runs may go on after SIGTERM before they are given back",
    )

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise ConfigurationError(f"BATON_WORKER_CONCURRENCY is {self.concurrency}, must be 1..{MAX_CONCURRENCY}")
        if self.grace_seconds < 0 or not math.isfinite(self.grace_seconds):
            raise ConfigurationError(f"BATON_WORKER_GRACE_SECONDS is {self.grace_seconds}, must be 0 or more")
