"""What the built-in tools do; what they are called, take and answer is in `services.pipeline.builtin`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from services.chassis.egress.client import Egress
from services.pipeline.builtin import BUILTIN_TOOLS
from services.worker.tools.http_request import HttpRequest
from services.worker.tools.schemas import InputSchema, OutputSchema

Tool = Callable[[dict[str, Any], float, str], Awaitable[Any]]
"""Takes its input, how many seconds it has, which it keeps to itself, and the call's idempotency key, which is the same
on every attempt. Raises StepFailed."""


async def echo(arguments: dict[str, Any], timeout: float, key: str) -> Any:
    """Answers its input, whatever it is, at once."""
    return arguments


def tools(egress: Egress) -> Mapping[str, Tool]:
    """All built-in tools by their address."""
    return {"echo.test": echo, "http.request": HttpRequest(egress)}


class BuiltinTools:
    """Calls built-in tools, and holds them and their callers to the schemas."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self._inputs = {address: InputSchema(address, BUILTIN_TOOLS[address].input_schema) for address in tools}
        self._outputs = {address: OutputSchema(address, BUILTIN_TOOLS[address].output_schema) for address in tools}

    def __contains__(self, address: str) -> bool:
        return address in self._tools

    async def call(self, address: str, arguments: dict[str, Any], *, timeout: float, key: str) -> Any:
        """Raises StepFailed: InputNotValid before the tool is called when its input does not fit."""
        self._inputs[address].check(arguments)
        output = await self._tools[address](arguments, timeout, key)
        self._outputs[address].check(output)
        return output
