"""Tools that a pipeline can use."""

from dataclasses import dataclass, field
from typing import Any

DEFAULT_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Tool:
    """One tool that a pipeline can use."""

    address: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    """None when its server promises none."""
    # What follows is its server's.
    server: str = ""
    scopes: list[str] = field(default_factory=list)
    timeout_seconds: int = DEFAULT_TIMEOUT_SECONDS
    enabled: bool = True


@dataclass(frozen=True)
class ToolFilters:
    """Which tools are wanted; empty is any."""

    server: str = ""
    text: str = ""
    """In the address or the description, in any case."""
