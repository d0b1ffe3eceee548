"""How long a tool asks to be left alone, in seconds."""

from collections.abc import Mapping
from typing import Any

from services.worker.limits import MAX_RETRY_AFTER_SECONDS

META_KEY = "retry_after_seconds"
"""Where a tool's result says it, in `_meta`."""


def from_meta(meta: Mapping[str, Any] | None) -> float | None:
    """What the `_meta` of a tool's result says, None when it says nothing that can be followed."""
    seconds = (meta or {}).get(META_KEY)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    # NaN is not at least nothing, either.
    return float(min(seconds, MAX_RETRY_AFTER_SECONDS)) if seconds >= 0 else None
