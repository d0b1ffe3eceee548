"""What a tool answered, as one JSON value."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import orjson
from mcp.types import CallToolResult, TextContent

from services.pipeline.definition import MAX_DEPTH
from services.worker.failures import MAX_MESSAGE, ToolFailed
from services.worker.limits import MAX_FILE_BYTES
from services.worker.tools import retry_after

# Outputs are stored as doubles, which skip integers from here on.
_LARGEST_EXACT_INTEGER = 2**53
_MAYBE_TOO_LARGE = re.compile(r"[0-9]{16}")


def from_mcp(result: CallToolResult, clean: Callable[[str], str] = str) -> Any:
    """The structured content when there is some, else the text: as the JSON it holds, or as it is.

    Several blocks become a list. Raises ToolFailed with the tool's own words when the tool says that it failed, and
    with the seconds that it asks to be left alone when its `_meta` has `retry_after_seconds`.

    Text goes through `clean` before it is cut off or read as JSON: parts of a secret would not be found any more.
    """
    if result.is_error:
        text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        raise ToolFailed(
            clean(text)[:MAX_MESSAGE] or "the tool failed and did not say why",
            retry_after=retry_after.from_meta(result.meta),
        )
    if result.structured_content is not None:
        return result.structured_content
    blocks = [_block(block, clean) for block in result.content]
    return blocks[0] if len(blocks) == 1 else blocks or None


def parse(text: str) -> Any:
    """JSON. Raises ValueError.

    orjson rounds integers beyond 64 bits, so text that may hold one is read again by a slower parser.
    """
    value = orjson.loads(text)
    if not _MAYBE_TOO_LARGE.search(text):
        return value
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        return value  # far too deep to be kept anyway


def checked(output: Any) -> Any:
    """The output as it is kept: integers beyond 2**53 as strings of their digits, so that they stay as they are.

    Raises ToolFailed when it is no JSON, too large, too deep, or has the character NUL, which no database keeps.
    """
    exact = _exact(output, MAX_DEPTH)
    try:
        text = orjson.dumps(exact)
    except TypeError:
        raise _no_json() from None
    if len(text) > MAX_FILE_BYTES:
        raise ToolFailed(f"output is {len(text)} bytes, at most {MAX_FILE_BYTES}")
    if b"\\u0000" in text and _has_nul(exact):
        raise ToolFailed("the output contains the character NUL, which cannot be kept")
    return exact


def _block(block: Any, clean: Callable[[str], str]) -> Any:
    if not isinstance(block, TextContent):
        return block.model_dump(mode="json", by_alias=True, exclude_none=True)
    text = clean(block.text)
    try:
        return parse(text)
    except ValueError:
        return text


def _integer(digits: str) -> int | str:
    # Text of any length: Python does not read integers of more than 4300 digits.
    return digits if len(digits) > len(str(-_LARGEST_EXACT_INTEGER)) else int(digits)


def _exact(value: Any, levels: int) -> Any:
    if isinstance(value, dict | list) and not levels:
        raise ToolFailed(f"output is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {key: _exact(item, levels - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_exact(item, levels - 1) for item in value]
    if isinstance(value, int) and abs(value) > _LARGEST_EXACT_INTEGER:
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise _no_json()
    return value


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_nul, value.keys())) or any(map(_has_nul, value.values()))
    if isinstance(value, list):
        return any(map(_has_nul, value))
    return isinstance(value, str) and "\x00" in value


def _no_json() -> ToolFailed:
    return ToolFailed("the output is no valid JSON")
