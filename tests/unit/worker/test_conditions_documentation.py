"""docs/conditions.md says what is so."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from services.chassis.egress import allowed
from services.chassis.egress.client import Egress
from services.chassis.egress.guard import Guard
from services.pipeline.cel import Finding, compile_question
from services.pipeline.definition import check
from services.pipeline.templates import render
from services.worker.tools.builtin import BuiltinTools
from services.worker.tools.http_request import HttpRequest
from services.worker.tools.use import Use, User
from tests.support.http_server import HttpServer, said
from tests.support.resolver import FakeResolver

(EXAMPLE,) = re.findall(
    r"^```json\n(.*?)^```$",
    (Path(__file__).parents[3] / "docs" / "conditions.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.parametrize(("status", "is_down"), [(200, False), (500, True), (502, True), (503, True), (504, True)])
async def test_the_example_tells_when_the_shop_is_down(status: int, is_down: bool) -> None:
    task: dict[str, Any] = json.loads(EXAMPLE)
    tools = BuiltinTools({"http.request": HttpRequest(Egress(Guard(allowed.parse("loopback"), FakeResolver({}))))})
    async with HttpServer().serving() as shop:
        shop.answers["/health"] = said(status)
        params = task["payload"]["params"] | {"url": shop.url("/health")}
        probe = task["condition"]["probe"]
        context = {"params": params, "secrets": {"shop": "a long and random one"}}
        arguments = render(probe["with"], context)
        result = await tools.call(probe["uses"], arguments, Use(User("ada"), probe["timeout_seconds"], "probe:task:1"))
    assert compile_question(task["schedule_expr"]).holds(Finding(result, params)) is is_down


def test_the_run_of_the_example_sees_what_the_shop_answered() -> None:
    payload = json.loads(EXAMPLE)["payload"]
    assert check(payload, has_event=True) == []
    assert render(payload["pipeline"][0]["with"], {"event": {"result": {"status": 503}}}) == {"text": "It answers 503"}
