"""What the built-in tools do; what they are called and take is in `services.pipeline.builtin`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Tool = Callable[[dict[str, Any]], Awaitable[Any]]


async def echo(arguments: dict[str, Any]) -> Any:
    """Answers its input, whatever it is."""
    return arguments


TOOLS: Mapping[str, Tool] = {"echo.test": echo}
