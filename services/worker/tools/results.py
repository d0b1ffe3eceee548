"""What a tool answered, as one JSON value."""

from typing import Any

import orjson
from mcp.types import CallToolResult, TextContent

from services.pipeline.definition import MAX_DEPTH
from services.worker.failures import MAX_MESSAGE, ToolFailed

MAX_OUTPUT_BYTES = 64 * 1024
"""Bytes of JSON that one step's output may have."""


def from_mcp(result: CallToolResult) -> Any:
    """The structured content when there is some, else the text: as the JSON it holds, or as it is.

    Several blocks become a list. Raises ToolFailed with the tool's own words when the tool says that it failed.
    """
    if result.is_error:
        text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        raise ToolFailed(text[:MAX_MESSAGE] or "the tool failed and did not say why")
    if result.structured_content is not None:
        return result.structured_content
    blocks = [_block(block) for block in result.content]
    return blocks[0] if len(blocks) == 1 else blocks or None


def checked(output: Any) -> Any:
    """The output, if it can be kept. Raises ToolFailed when it is no JSON, too large or too deep."""
    try:
        size = len(orjson.dumps(output))
    except TypeError:
        raise ToolFailed("the output is no valid JSON") from None
    if size > MAX_OUTPUT_BYTES:
        raise ToolFailed(f"output is {size} bytes, at most {MAX_OUTPUT_BYTES}")
    if _depth(output) > MAX_DEPTH:
        raise ToolFailed(f"output is nested deeper than {MAX_DEPTH} levels")
    return output


def _block(block: Any) -> Any:
    if not isinstance(block, TextContent):
        return block.model_dump(mode="json", by_alias=True, exclude_none=True)
    try:
        return orjson.loads(block.text)
    except orjson.JSONDecodeError:
        return block.text


def _depth(value: Any) -> int:
    """Levels of objects and lists; orjson wrote the value, so they are fewer than 255."""
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
