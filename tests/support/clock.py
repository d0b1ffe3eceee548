"""A clock that tests set."""

from datetime import UTC, datetime, timedelta


class ManualClock:
    """Stands still until it is moved. Starts at the present whole second."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC).replace(microsecond=0)

    def now(self) -> datetime:
        return self._now

    def advance(self, **amount: float) -> None:
        """Moves the clock on by a timedelta given in keywords, such as `hours=1`."""
        self._now += timedelta(**amount)
