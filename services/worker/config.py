"""What the worker reads from its environment."""

import math
from dataclasses import dataclass
from pathlib import Path

from services.chassis.config import ConfigurationError, setting
from services.chassis.egress import allowed
from services.worker.limits import ProcessLimits

MAX_CONCURRENCY = 1000
MAX_TOOL_CALLS = 1000
MAX_ROLE_LENGTH = 50
# With less of either nothing starts.
MIN_TOOL_MEMORY_MB, MAX_TOOL_MEMORY_MB = 64, 1_048_576
MIN_TOOL_OPEN_FILES, MAX_TOOL_OPEN_FILES = 64, 1_048_576
_MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """Raises ConfigurationError for numbers that are out of bounds."""

    tasks_address: str = setting("BATON_TASKS_ADDRESS", help="host:port or unix:/path of the tasks service")
    sessions_address: str = setting("BATON_SESSIONS_ADDRESS", help="host:port or unix:/path of the sessions service")
    workflows_address: str = setting("BATON_WORKFLOWS_ADDRESS", help="host:port or unix:/path of the workflows service")
    token_file: Path = setting(
        "BATON_WORKER_TOKEN_FILE",
        help="file with the worker's token; its agent needs the scopes runs:work, tools:admin and agents:read",
    )
    concurrency: int = setting("BATON_WORKER_CONCURRENCY", default=100, help=f"runs at one time, 1..{MAX_CONCURRENCY}")
    tool_calls: int = setting(
        "BATON_WORKER_TOOL_CALLS", default=10, help=f"calls to one tool server at one time, 1..{MAX_TOOL_CALLS}"
    )
    role: str = setting(
        "BATON_WORKER_ROLE",
        default="",
        help=f"do only runs of this role, at most {MAX_ROLE_LENGTH} characters; empty for those of no role",
    )
    grace_seconds: float = setting(
        "BATON_WORKER_GRACE_SECONDS",
        default=20.0,
        help="how many seconds, 0 or more, runs may go on after SIGTERM before they are given back",
    )
    egress_allow: str = setting(allowed.VARIABLE, default="", help=allowed.HELP)

    secrets_dir: Path | None = setting(
        "BATON_SECRETS_DIR",
        default=None,
        help="folder with one file per secret that pipelines and tool servers may use",
    )

    tool_memory_mb: int = setting(
        "BATON_TOOL_MEMORY_MB",
        default=2048,
        help="MiB of private memory that each process of a stdio tool server may have; 0 is no limit",
    )
    tool_open_files: int = setting(
        "BATON_TOOL_OPEN_FILES",
        default=1024,
        help="files and sockets that each process of a stdio tool server may have open",
    )

    @property
    def process_limits(self) -> ProcessLimits:
        """What the processes of tool servers may have."""
        return ProcessLimits(self.tool_memory_mb * _MEGABYTE, self.tool_open_files)

    def __post_init__(self) -> None:
        _check_count("BATON_WORKER_CONCURRENCY", self.concurrency, MAX_CONCURRENCY)
        _check_count("BATON_WORKER_TOOL_CALLS", self.tool_calls, MAX_TOOL_CALLS)
        if self.tool_memory_mb:
            _check_count("BATON_TOOL_MEMORY_MB", self.tool_memory_mb, MAX_TOOL_MEMORY_MB, MIN_TOOL_MEMORY_MB)
        _check_count("BATON_TOOL_OPEN_FILES", self.tool_open_files, MAX_TOOL_OPEN_FILES, MIN_TOOL_OPEN_FILES)
        if len(self.role) > MAX_ROLE_LENGTH:
            raise ConfigurationError(
                f"BATON_WORKER_ROLE has {len(self.role)} characters, must be at most {MAX_ROLE_LENGTH}"
            )
        if self.grace_seconds < 0 or not math.isfinite(self.grace_seconds):
            raise ConfigurationError(f"BATON_WORKER_GRACE_SECONDS is {self.grace_seconds}, must be 0 or more")
        allowed.parse(self.egress_allow)
        if self.secrets_dir is not None and not self.secrets_dir.is_dir():
            raise ConfigurationError(f"BATON_SECRETS_DIR is {self.secrets_dir}, must be a folder")


def _check_count(variable: str, count: int, highest: int, lowest: int = 1) -> None:
    if not lowest <= count <= highest:
        raise ConfigurationError(f"{variable} is {count}, must be {lowest}..{highest}")
