"""How long the server that answered asks to be left alone."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from services.chassis.backoff import MAX_RETRY_AFTER


def from_headers(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds that the `Retry-After` of an HTTP response says, an hour at most; None when it says nothing.

    See RFC 9110, section 10.2.3. A date counts from the response's own `Date`, so that clocks need not agree, and else
    from `now`.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return _bounded(float(value))
    until = _date(value)
    if until is None:
        return None
    return _bounded((until - (_date(headers.get("date", "")) or now)).total_seconds())


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_RETRY_AFTER.total_seconds())


def _date(value: str) -> datetime | None:
    """An HTTP date: always UTC, in whichever of its three forms."""
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
