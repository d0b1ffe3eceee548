"""What the built-in tools do; what they are called and take is in `services.pipeline.builtin`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Tool = Callable[[dict[str, Any], float], Awaitable[Any]]
"""Takes its input and how many seconds it has, which it keeps to itself. Raises StepFailed."""


async def echo(arguments: dict[str, Any], timeout: float) -> Any:
    """Answers its input, whatever it is, at once."""
    return arguments


TOOLS: Mapping[str, Tool] = {"echo.test": echo}
