"""Which Baton this is."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def installed_version() -> str:
    """The installed version, or `unknown` in a checkout that was never installed."""
    try:
        return version("baton")
    except PackageNotFoundError:
        return "unknown"
