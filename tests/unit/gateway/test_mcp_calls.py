"""What a client of MCP sees of its calls."""

import json
from typing import Any

import httpx2
import pytest
from mcp_types import CallToolResult, TextContent

from services.chassis.errors import (
    FailedPrecondition,
    Internal,
    InvalidArgument,
    PermissionDenied,
    ServiceError,
    Unavailable,
    Violation,
)
from services.gateway.mcp.calls import REPLAYED
from tests.unit.gateway.garden import ACCESS_TOKEN, Garden
from tests.unit.gateway.mcp_client import MODES, open_client

PLANT_ID = "0192f8a0-0000-7000-8000-000000000000"
BASIL = {"name": "basil", "state": "growing", "notes": {"sun": [1, 2.5, None]}}


async def call(garden: Garden, tool: str, mode: str = "auto", /, **arguments: Any) -> CallToolResult:
    async with open_client(garden, mode) as client:
        # Once it knows the schema of the answer it checks what it gets against that.
        await client.list_tools()
        return await client.call_tool(tool, arguments)


def text(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def problem(result: CallToolResult) -> dict[str, Any]:
    assert (result.is_error, result.structured_content) == (True, None)
    told: dict[str, Any] = json.loads(text(result))
    return told


@pytest.mark.parametrize("mode", MODES)
async def test_the_result_is_what_rest_answers(garden: Garden, client: httpx2.AsyncClient, mode: str) -> None:
    result = await call(garden, "plant", mode, **BASIL)
    assert not result.is_error
    assert result.structured_content == json.loads(text(result))
    garden.greenhouse.plants[PLANT_ID] = garden.greenhouse.plants["plant-0"]
    over_rest = await client.get(f"/plants/{PLANT_ID}")
    assert text(result) == over_rest.text
    assert (await call(garden, "look_at_plant", mode, plant_id=PLANT_ID)).structured_content == over_rest.json()
    assert (await call(garden, "list_plants", mode)).structured_content == (await client.get("/plants/")).json()


async def test_arguments_reach_the_request_wherever_rest_has_them(garden: Garden) -> None:
    await call(garden, "look_at_plant", plant_id="a/b", bed="north side")
    await call(garden, "list_plants", limit=7, state=["growing"], window={"since": "2026-01-02T03:04:05Z"})
    await call(garden, "change_plant", plant={"id": "p-1", "name": "thyme"}, dry_run=True)
    await call(garden, "harvest_plant", plant_id="p-2", note="ripe")
    looked, listed, changed, harvested = garden.greenhouse.requests
    assert (looked.plant_id, looked.bed) == ("a/b", "north side")
    assert (listed.limit, list(listed.state), listed.window.since.seconds) == (7, [1], 1767323045)
    assert (changed.plant.id, changed.plant.name, changed.dry_run) == ("p-1", "thyme", True)
    assert (harvested.plant_id, harvested.note) == ("p-2", "ripe")


async def test_whole_numbers_are_exact(garden: Garden) -> None:
    result = await call(garden, "water_plant", plant_id="p-1", amount=2**63 - 1)
    assert result.structured_content == {"plant_id": "p-1", "amount": 2**63 - 1}


async def test_a_change_tells_which_fields_it_gives_null_included(garden: Garden) -> None:
    result = await call(garden, "change_bed", id="b-1", state="growing", label=None, pot={"width": 3})
    assert result.structured_content == {"changed": ["label", "pot", "state"], "label": None}
    request = garden.greenhouse.requests[0]
    assert (request.id, request.HasField("label"), request.pot.width) == ("b-1", False, 3)


async def test_a_change_of_one_field_tells_which_of_its_fields_it_gives(garden: Garden) -> None:
    result = await call(garden, "change_plant", plant={"id": "p-1", "remark": None, "water": 0}, dry_run=True)
    assert result.structured_content
    assert result.structured_content["changed"] == ["remark", "water"]


async def test_an_answer_may_be_nothing(garden: Garden) -> None:
    assert (await call(garden, "sweep")).structured_content == {}


@pytest.mark.parametrize("mode", MODES)
async def test_a_key_makes_a_call_safe_to_repeat(garden: Garden, mode: str) -> None:
    first, again = [await call(garden, "plant", mode, **BASIL, idempotency_key="k-1") for _ in range(2)]
    assert first.structured_content == again.structured_content
    assert [(one.meta or {}).get(REPLAYED) for one in (first, again)] == [None, True]
    assert [request.request_id for request in garden.greenhouse.requests] == ["k-1", "k-1"]
    assert len(garden.greenhouse.plants) == 1


@pytest.mark.parametrize("key", ["", "a b", "ü", "k" * 256, 7])
async def test_a_key_that_is_none_is_named(garden: Garden, key: object) -> None:
    told = problem(await call(garden, "plant", **BASIL, idempotency_key=key))
    assert told["reason"] == "IDEMPOTENCY_KEY_INVALID"
    assert [error["field"] for error in told["errors"]] == ["idempotency_key"]
    assert garden.greenhouse.requests == []


async def test_a_key_is_named_as_it_was_given_when_the_service_refuses_it(garden: Garden) -> None:
    garden.greenhouse.fails_with = InvalidArgument.of([Violation("request_id", "must be a UUID")])
    told = problem(await call(garden, "plant", **BASIL, idempotency_key="k-1"))
    assert told["detail"] == "idempotency_key: must be a UUID"
    assert told["errors"] == [{"field": "idempotency_key", "message": "must be a UUID"}]


@pytest.mark.parametrize(
    ("name", "arguments", "errors"),
    [
        ("plant", {"name": 3, "colour": "red"}, {
            "name": "must be a string", "colour": "is not known; known are name, state, like, notes, tags",
        }),
        ("plant", {"request_id": "k"}, {"request_id": "is given as idempotency_key"}),
        ("change_bed", {"id": "b", "update_mask": "label"}, {"update_mask": "is given by the names of the arguments"}),
        ("change_bed", {"label": "x"}, {"id": "must be given"}),
        ("change_bed", {"id": None}, {"id": "must be given"}),
        ("change_bed", {"id": 3}, {"id": "must be a string"}),
        ("change_plant", {"plant": {"name": "thyme"}}, {"plant.id": "must be given"}),
        ("change_plant", {"plant": {"id": "p", "pot": {"width": "wide"}}}, {
            "plant.pot.width": "must be an integer from -2147483648 to 2147483647",
        }),
        ("water_plant", {"plant_id": "p", "amount": 1, "idempotency_key": "k"}, {
            "idempotency_key": "is not known; known are plant_id, amount",
        }),
    ],
)  # fmt: skip
async def test_every_faulty_argument_is_named(
    garden: Garden, name: str, arguments: dict[str, Any], errors: dict[str, str]
) -> None:
    told = problem(await call(garden, name, **arguments))
    assert (told["status"], told["reason"]) == (400, "INVALID_ARGUMENT")
    assert {error["field"]: error["message"] for error in told["errors"]} == errors
    assert garden.greenhouse.requests == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (FailedPrecondition("the bed is full", reason="BED_FULL"), 409, "BED_FULL"),
        (PermissionDenied("this needs the scope 'plants:write'", reason="SCOPE_MISSING"), 403, "SCOPE_MISSING"),
        (InvalidArgument("other body", reason="IDEMPOTENCY_KEY_REUSED"), 422, "IDEMPOTENCY_KEY_REUSED"),
    ],
)
async def test_a_failure_is_a_result_that_says_why(
    garden: Garden, mode: str, error: ServiceError, status: int, reason: str
) -> None:
    garden.greenhouse.fails_with = error
    told = problem(await call(garden, "plant", mode, **BASIL))
    assert (told["status"], told["reason"], told["detail"]) == (status, reason, error.message)
    assert (told["instance"], told["request_id"]) == ("/mcp", garden.greenhouse.metadata["x-request-id"])


async def test_a_failure_tells_when_to_come_back(garden: Garden) -> None:
    garden.greenhouse.fails_with = Unavailable("not now", reason="BUSY", retry_after=1.2)
    assert problem(await call(garden, "plant", **BASIL))["retry_after_seconds"] == 2


@pytest.mark.parametrize("error", [Internal("the password is secret"), RuntimeError("the password is secret")])
async def test_a_fault_of_ours_says_nothing_else(garden: Garden, error: Exception) -> None:
    garden.greenhouse.fails_with = error
    told = problem(await call(garden, "plant", **BASIL))
    assert (told["status"], told["detail"]) == (500, "internal error")


async def test_the_caller_s_own_token_is_exchanged(garden: Garden) -> None:
    await call(garden, "list_plants")
    assert garden.greenhouse.metadata["authorization"] == f"Bearer {ACCESS_TOKEN}"
