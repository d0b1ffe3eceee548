"""What becomes of a tool's answer."""

import json
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2
from mcp.types import CallToolResult, TextContent

from services.chassis import structs
from services.worker.failures import ToolFailed
from services.worker.tools import results
from tests.support.fake_tasks import FakeTasks
from tests.unit.worker.conftest import Working

LARGEST = 2**53
ANSWERS = [
    (LARGEST, LARGEST),
    (-LARGEST, -LARGEST),
    (LARGEST + 1, "9007199254740993"),
    (-LARGEST - 1, "-9007199254740993"),
    (2**64 + 1, "18446744073709551617"),
    (10**200, str(10**200)),
    ({"a": [1, {"id": 2**63 - 1}], "ok": True}, {"a": [1, {"id": "9223372036854775807"}], "ok": True}),
    (1.5e300, 1.5e300),
    ("9007199254740993 is text", "9007199254740993 is text"),
]


@pytest.mark.parametrize(("answer", "kept"), ANSWERS)
def test_integers_that_no_double_holds_are_kept_as_their_digits(answer: Any, kept: Any) -> None:
    structured = CallToolResult(content=[], structured_content={"result": answer})
    text = CallToolResult(content=[TextContent(type="text", text=json.dumps({"result": answer}))])
    for result in (structured, text):
        output = results.checked(results.from_mcp(result))
        assert output == {"result": kept}
        assert structs.from_value(structs.to_value(output)) == output


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ToolFailed, match="no valid JSON"):
        results.checked({"x": float("nan")})


async def test_later_steps_and_a_later_attempt_see_the_same_integer(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    steps = [
        {"uses": "mis.say", "with": {"text": '{"id": 9007199254740993}'}, "save_as": "made"},
        {"uses": "echo.test", "with": {"id": "${steps.made.id}", "text": "no. ${steps.made.id}"}, "save_as": "seen"},
    ]
    async with working():
        run = await tasks.ended(await tasks.enqueue(*steps))
        rescued = await tasks.enqueue(*steps, attempt=1, steps=run.steps[:1])
        await tasks.ended(rescued)
    assert run.output["seen"] == {"id": "9007199254740993", "text": "no. 9007199254740993"}
    assert rescued.output == run.output
    assert [step.status for step in rescued.steps] == [run_pb2.STEP_STATUS_SUCCEEDED] * 2
    assert rescued.steps[1].input_digest == run.steps[1].input_digest


@pytest.mark.parametrize("output", ["a\x00b", {"a": [1, {"b": "\x00"}]}, {"\x00": 1}])
def test_what_no_database_keeps_is_refused(output: Any) -> None:
    with pytest.raises(ToolFailed, match="contains the character NUL"):
        results.checked(output)


def test_text_that_only_spells_a_nul_is_kept() -> None:
    assert results.checked({"a": r"\u0000", r"\\u0000": 1}) == {"a": r"\u0000", r"\\u0000": 1}
