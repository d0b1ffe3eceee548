"""What is a message of JSON-RPC, and what is wrong with one that is not, in words that help."""

from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import ValidationError

from services.chassis.errors import InvalidArgument

_NO_MESSAGE = (
    "the body must be one request or notification of JSON-RPC: an object with jsonrpc '2.0', a method, params that are "
    "an object, and for a request an id that is text or a whole number"
)


def check_message(value: object) -> None:
    """Raises InvalidArgument `MESSAGE_NOT_JSON_RPC`, of which the library would tell how it is implemented."""
    if not (
        isinstance(value, dict)
        and value.get("jsonrpc") == "2.0"
        and isinstance(value.get("method"), str)
        and isinstance(value.get("params", {}), dict)
        and type(value.get("id", 0)) in (str, int)
    ):
        raise InvalidArgument(_NO_MESSAGE, reason="MESSAGE_NOT_JSON_RPC")


async def name_faulty_params(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Middleware of the library: says of params that its types refuse which they are, where it would not say."""
    try:
        return await call_next(ctx)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg'].lower()}"
            for fault in error.errors(include_input=False, include_url=False, include_context=False)
        ]
        raise MCPError(INVALID_PARAMS, "; ".join(faults)) from None
