"""Which tools of a server are reported."""

from typing import Any

import pytest
from baton.tasks.v1 import tool_service_pb2
from mcp.types import Tool

from services.pipeline.definition import MAX_DEPTH
from services.worker.tools import offers

GOOD = Tool(name="good", input_schema={"type": "object"})


def nested(levels: int) -> dict[str, Any]:
    return {"x": nested(levels - 1)} if levels > 1 else {}


@pytest.mark.parametrize(
    "tool",
    [
        Tool(name="x" * 129, input_schema={}),
        Tool(name="", input_schema={}),
        Tool(name="two words", input_schema={}),
        Tool(name="été", input_schema={}),
        Tool(name="deep", input_schema=nested(MAX_DEPTH + 1)),
        Tool(name="endless", input_schema=nested(400)),
        Tool(name="large", input_schema={"maximum": 10**400}),
        Tool(name="nul", description="a\0b", input_schema={}),
        Tool(name="surrogate", description="\ud800", input_schema={}),
        GOOD,
    ],
    ids=lambda tool: tool.name[:10],
)
def test_an_unusable_tool_is_left_out(tool: Tool) -> None:
    assert [message.address for message in offers.as_messages("mis", [GOOD, tool])] == ["mis.good"]


def test_what_is_just_within_the_limits_is_reported_and_can_be_read() -> None:
    tools = [Tool(name="x" * 128, input_schema={}), Tool(name="deep", input_schema=nested(MAX_DEPTH))]
    request = tool_service_pb2.ReportToolsRequest(server="mis", tools=offers.as_messages("mis", tools))
    read = tool_service_pb2.ReportToolsRequest.FromString(request.SerializeToString())
    assert [tool.address for tool in read.tools] == ["mis." + "x" * 128, "mis.deep"]
