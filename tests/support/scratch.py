"""Directories for what tests write and nobody keeps."""

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 1 << 30


def new_directory(prefix: str) -> Path:
    """An empty directory, in memory where there is plenty: making and dropping databases is mostly file work.

    Whoever asked for it deletes it.
    """
    return Path(tempfile.mkdtemp(prefix=f"baton-{prefix}-", dir=_MEMORY if _is_plentiful(_MEMORY) else None))


def _is_plentiful(directory: Path) -> bool:
    writable = directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)
    return writable and shutil.disk_usage(directory).free >= _ENOUGH_BYTES
