"""Where the time comes from."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant_text(instant: datetime) -> str:
    """An aware instant in RFC 3339: in UTC, with microseconds and `Z`."""
    # strftime would write the years before 1000 with fewer than four digits.
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Clock(Protocol):
    """Tells the time; rules take one as an argument and never look at a watch themselves."""

    def now(self) -> datetime:
        """The current instant, aware, in UTC."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True)
class StoppedClock:
    """One instant, for as long as one transaction lasts: everything in it happens at once."""

    instant: datetime

    def now(self) -> datetime:
        return self.instant
