"""What the worker keeps of what runs do, and what the processes of tool servers may have."""

from dataclasses import dataclass

MAX_OUTPUT_BYTES = 64 * 1024
"""Bytes of JSON that stay in the record of a step or a run; more than that goes to a file."""
MAX_FILE_BYTES = 4 * 1024 * 1024
"""Bytes of JSON that one step's output may have, and all that a run saved together."""
MAX_RETRY_AFTER_SECONDS = 3600.0
"""How long a tool may ask to be left alone; the tasks service waits no longer."""


@dataclass(frozen=True)
class ProcessLimits:
    """What one process of a tool server may have; 0 is no limit."""

    memory_bytes: int = 2048 * 1024 * 1024
    """Of private memory that can be written."""
    open_files: int = 1024
