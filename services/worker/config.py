"""What the worker reads from its environment."""

from dataclasses import dataclass
from pathlib import Path

from services.chassis.config import setting


@dataclass(frozen=True)
class Settings:
    tasks_address: str = setting("BATON_TASKS_ADDRESS", help="host:port of the tasks service")
    sessions_address: str = setting("BATON_SESSIONS_ADDRESS", help="host:port of the sessions service")
    token_file: Path = setting(
        "BATON_WORKER_TOKEN_FILE",
        help="file with the worker's token; its agent needs the scopes runs:work and tools:admin",
    )
    concurrency: int = setting("BATON_WORKER_CONCURRENCY", default=10, help="runs at one time, 1..100")
    grace_seconds: float = setting(
        "BATON_WORKER_GRACE_SECONDS",
        default=20.0,
        help="how long runs may go on after SIGTERM before they are given back",
    )
