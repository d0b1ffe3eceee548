"""Where a client finds what it has made."""

from dataclasses import replace
from typing import Any

import httpx2
import pytest

from services.chassis.config import ConfigurationError
from services.gateway.descriptors import Method, load_methods
from services.gateway.location import locator
from services.gateway.path_template import parse_template
from services.gateway.routes import Router
from tests.unit.gateway.garden import PACKAGE, Contract, Garden
from tests.unit.gateway.test_routes import nowhere

BASIL = {"name": "basil", "state": "growing", "notes": {}}
# What makes several things at once, or one that is not read by itself.
UNLOCATED = {
    *("CreateRuns", "AppendAgentLogs", "AppendSystemLogs", "RecordUsage"),
    *("CreateToken", "RotateToken", "SendChatMessage"),
}


async def test_what_was_made_is_read_where_the_answer_says(client: httpx2.AsyncClient, garden: Garden) -> None:
    made = [await client.post("/plants", json=BASIL, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert [answer.headers["location"] for answer in made] == ["/plants/plant-0", "/plants/plant-0"]
    assert (await client.get(made[0].headers["location"])).json() == made[0].json()


async def test_what_makes_nothing_says_no_place(client: httpx2.AsyncClient, garden: Garden) -> None:
    answers = [await client.put("/plants/p-1/pot", json={}), await client.post("/plants", json={"name": 1})]
    assert [answer.status_code for answer in answers] == [200, 400]
    assert not any("location" in answer.headers for answer in answers)


async def test_the_document_says_that_there_is_one(client: httpx2.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    header = paths["/plants"]["post"]["responses"]["201"]["headers"]["Location"]
    assert header["schema"] == {"type": "string", "format": "uri-reference"}
    assert "Location" not in paths["/beds/{id}"]["put"]["responses"]["200"]["headers"]


@pytest.mark.parametrize(
    ("template", "values", "path"),
    [
        ("/a/{id}", ("7",), "/a/7"),
        ("/a/{id}", ("x/y z:?é",), "/a/x%2Fy%20z%3A%3F%C3%A9"),
        ("/a/{id}/b/{part.name}:read", ("1", "2"), "/a/1/b/2:read"),
        ("/{name=shelves/*/books/*}", ("shelves/1/books/2 3",), "/shelves/1/books/2%203"),
        ("/{first}/files/{path=**}", ("f", "a/b"), "/f/files/a/b"),
    ],
)
def test_a_path_is_filled_so_that_the_same_values_are_found_in_it(
    template: str, values: tuple[str, ...], path: str
) -> None:
    assert parse_template(template).expand(values) == path
    router = Router()
    router.add("GET", template, nowhere)
    assert tuple(router.match("GET", path.encode())[1].values()) == values


@pytest.mark.parametrize(
    ("location", "status", "why"),
    [
        ("/plants/{plant.id}", 200, "its success_status is not 201"),
        ("/pots/{plant.id}", 201, "nothing can be read"),
        ("/plants/{plant.id}/labels", 201, "nothing can be read"),
        ("/plants/{plant.id}:water", 201, "nothing can be read"),
        ("/plants/{id}", 201, "no such text or number"),
        ("/plants/{plant.tags}", 201, "no such text or number"),
        ("/plants/{plant.planted_at}", 201, "no such text or number"),
        ("/plants/{plant.mass}", 201, "no such text or number"),
        ("/plants/*", 201, "that no field fills"),
        ("/plants/{plant.id", 201, "cannot be served"),
    ],
)
def test_a_place_that_cannot_be_told_stops_the_start(contract: Contract, location: str, status: int, why: str) -> None:
    methods = load_methods([PACKAGE])
    [create] = [one for one in methods if one.descriptor.name == "CreatePlant"]
    with pytest.raises(ConfigurationError, match=why):
        locator(changed(create, location=location, success_status=status), methods)


def changed(method: Method, **policy: Any) -> Method:
    copied = type(method.policy)()
    copied.CopyFrom(method.policy)
    for name, value in policy.items():
        setattr(copied, name, value)
    return replace(method, policy=copied)


def test_whatever_baton_makes_alone_has_a_place() -> None:
    methods = load_methods(["baton.sessions.v1", "baton.tasks.v1", "baton.workflows.v1"])
    made = [one for one in methods if one.policy.success_status == 201]
    assert {one.descriptor.name for one in made if locator(one, methods) is None} == UNLOCATED
