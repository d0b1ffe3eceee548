"""What the unit tests of the tasks context share."""

import zoneinfo
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def zones_of_the_wheel() -> Iterator[None]:
    """The zones that the service has: those of the tzdata package, whatever the machine knows."""
    zoneinfo.reset_tzpath(())
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath()
    zoneinfo.ZoneInfo.clear_cache()
