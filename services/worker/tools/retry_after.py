"""How long a tool asks to be left alone, in seconds."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from services.worker.limits import MAX_RETRY_AFTER_SECONDS

META_KEY = "retry_after_seconds"
"""Where a tool's result says it, in `_meta`."""


def from_headers(headers: Mapping[str, str], now: datetime) -> float | None:
    """What the `Retry-After` of an HTTP response says (RFC 9110, section 10.2.3), None when it says nothing.

    A date counts from the response's own `Date`, so that clocks need not agree, and else from `now`.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return _bounded(float(value))
    until = _date(value)
    if until is None:
        return None
    return _bounded((until - (_date(headers.get("date", "")) or now)).total_seconds())


def from_meta(meta: Mapping[str, Any] | None) -> float | None:
    """What the `_meta` of a tool's result says, None when it says nothing that can be followed."""
    seconds = (meta or {}).get(META_KEY)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return _bounded(seconds) if seconds >= 0 else None  # which NaN is not, either


def _bounded(seconds: float) -> float:
    return float(min(max(seconds, 0), MAX_RETRY_AFTER_SECONDS))


def _date(value: str) -> datetime | None:
    """An HTTP date: always UTC, in whichever of its three forms."""
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
