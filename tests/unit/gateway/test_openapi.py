"""The OpenAPI document and the pages that show it."""

import re
from difflib import unified_diff
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import orjson
import pytest
from buf.validate.validate_pb2 import IGNORE_IF_ZERO_VALUE, FieldRules, Int32Rules, RepeatedRules, StringRules
from openapi_spec_validator import OpenAPIV31SpecValidator

from services.gateway.descriptors import load_methods
from services.gateway.documentation import shipped_comments, shipped_packages
from services.gateway.openapi.__main__ import written
from services.gateway.openapi.document import describe
from services.gateway.openapi.rules import keywords
from tests.unit.gateway.garden import PACKAGE, Contract

REVIEWED = Path(__file__).parents[3] / "docs" / "openapi.yaml"


@pytest.fixture(scope="session")
def document(contract: Contract) -> Any:
    return orjson.loads(orjson.dumps(describe(load_methods([PACKAGE]), contract.comments, "1.2.3")))


def body_schema(document: Any, path: str, verb: str) -> Any:
    return document["paths"][path][verb]["requestBody"]["content"]["application/json"]["schema"]


def test_the_document_is_valid(contract: Contract) -> None:
    described = describe(load_methods([*shipped_packages(), PACKAGE]), shipped_comments() | contract.comments, "1.2.3")
    OpenAPIV31SpecValidator(orjson.loads(orjson.dumps(described))).validate()


def test_the_document_is_the_one_that_was_reviewed() -> None:
    difference = list(unified_diff(REVIEWED.read_text().splitlines(), written().splitlines(), lineterm="", n=1))
    assert not difference, "\n".join(["run `make openapi`, and review what changes:", *difference[:100]])


def test_every_rule_of_a_contract_is_a_path(document: Any) -> None:
    found = {(path, verb) for path, operations in document["paths"].items() for verb in operations}
    assert found == {
        ("/plants/{plant_id}", "get"),
        ("/beds/{bed}/plants/{plant_id}", "get"),
        ("/plants/favourite", "get"),
        ("/plants/", "get"),
        ("/plants", "post"),
        ("/plants/{plant.id}", "patch"),
        ("/plants/{plant_id}:water", "post"),
        ("/plants/{plant_id}/harvest", "post"),
        ("/beds/{id}", "patch"),
        ("/beds/{id}", "put"),
        ("/beds/{id}/", "patch"),
        ("/plants/{plant_id}/pot", "put"),
        ("/plants.csv", "get"),
        ("/plants:watch", "get"),
        ("/seeds", "post"),
        ("/gate", "post"),
        ("/plants/{plant_id}/labels", "put"),
        ("/plants/{plant_id}/tags", "put"),
        ("/plants/{plant_id}/nickname", "put"),
        ("/plants:count", "get"),
        ("/floor:sweep", "post"),
        ("/frogs/{name}", "get"),
        ("/frogs", "post"),
        ("/frogs.csv", "get"),
        ("/frogs.ndjson", "get"),
        ("/frogs:watch", "get"),
        ("/houses/{house}/spots/{spot}", "get"),
        ("/houses/{name_1}/benches/{name_2}", "get"),
        ("/houses/{name_1}/benches/{name_2}:measure", "get"),
        ("/maps/{name}", "get"),
        ("/maps/{name}:print", "get"),
        ("/maps/legend:print", "get"),
        ("/signs/{any_1}/spots/{spot}", "get"),
        ("/signs/{any_1}", "get"),
    }
    ids = [operation["operationId"] for operations in document["paths"].values() for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    assert "GreenhouseService_GetPlant_2" in ids


def test_an_operation_says_what_the_contract_says(document: Any) -> None:
    operation = document["paths"]["/plants/{plant_id}"]["get"]
    assert operation["summary"] == "Reads one plant"
    assert operation["x-baton-scope"] == "plants:read"
    assert operation["tags"] == ["GreenhouseService"]
    assert operation["parameters"][0] == {
        "name": "plant_id",
        "in": "path",
        "required": True,
        "description": "The plant.",
        "schema": {"type": "string", "format": "uuid"},
        "example": "0195a7c4-5e1b-7d3a-9c42-6f0d8b2e7a91",
    }
    assert {"name": "GreenhouseService", "description": "Plants and how they do."} in document["tags"]


def test_every_wildcard_of_a_path_is_a_parameter(document: Any) -> None:
    text = {"type": "string"}

    def in_path(path: str) -> list[tuple[str, str, Any]]:
        found = [one for one in document["paths"][path]["get"]["parameters"] if one["in"] == "path"]
        return [(one["name"], one["description"], one["schema"]) for one in found]

    whole, part = "The house.", "In `name`, `houses/*/benches/*`."
    assert in_path("/houses/{house}/spots/{spot}") == [("house", whole, text), ("spot", "", text)]
    assert in_path("/houses/{name_1}/benches/{name_2}") == [("name_1", part, text), ("name_2", part, text)]
    assert in_path("/maps/{name}") == [("name", "All of an address. It may contain slashes.", text)]
    assert in_path("/signs/{any_1}") == [("any_1", "Anything. It may contain slashes.", text)]


def test_a_body_s_schema_keeps_the_contract_s_rules(document: Any) -> None:
    schema = body_schema(document, "/plants", "post")
    assert schema["required"] == ["name", "state", "notes"]
    assert "request_id" not in schema["properties"]
    assert schema["properties"]["name"] == {
        "type": "string", "minLength": 1, "maxLength": 20, "description": "1..20 characters.",
    }  # fmt: skip
    assert schema["properties"]["state"] == {"type": "string", "enum": ["growing", "thirsty"]}
    assert schema["properties"]["tags"] == {
        "type": ["array", "null"],
        "items": {"type": "string", "pattern": "^[a-z]+$"},
        "maxItems": 3,
        "uniqueItems": True,
    }
    assert body_schema(document, "/plants/{plant_id}:water", "post")["required"] == ["amount"]


@pytest.mark.parametrize(
    ("rules", "taken", "refused"),
    [
        (FieldRules(string=StringRules(pattern="^[a-z]+$")), ["", "basil"], "BASIL"),
        (FieldRules(int32=Int32Rules(gte=5)), [0, 5], 4),
        (FieldRules(repeated=RepeatedRules(min_items=2)), [[], [1, 2]], [1]),
    ],
)
def test_a_rule_that_ignores_what_is_empty_takes_it(rules: FieldRules, taken: list[Any], refused: Any) -> None:
    rules.ignore = IGNORE_IF_ZERO_VALUE
    schema = jsonschema.Draft202012Validator(keywords(rules))
    assert all(schema.is_valid(one) for one in taken)
    assert not schema.is_valid(refused)


@pytest.mark.parametrize("verb", ["patch", "put"])
def test_what_a_change_gives_may_be_null_and_names_no_mask(document: Any, verb: str) -> None:
    properties = body_schema(document, "/beds/{id}", verb)["properties"]
    assert set(properties) == {"label", "length", "state", "pot"}
    assert properties["label"] == {"type": ["string", "null"], "maxLength": 10}
    assert properties["state"] == {"type": ["string", "null"], "enum": ["growing", "thirsty", None]}
    assert {"type": "null"} in properties["pot"]["anyOf"]


def test_what_a_change_of_one_field_gives_may_be_null(document: Any) -> None:
    properties = body_schema(document, "/plants/{plant.id}", "patch")["properties"]
    assert properties["nickname"] == {"type": ["string", "null"]}
    assert properties["remark"] == {"type": ["string", "null"]}
    named = [one["name"] for one in document["paths"]["/plants/{plant.id}"]["patch"]["parameters"] if "name" in one]
    assert named == ["plant.id", "dry_run"]


def test_a_post_without_a_body_is_asked_by_parameters(document: Any) -> None:
    operation = document["paths"]["/plants/{plant_id}/harvest"]["post"]
    assert "requestBody" not in operation
    assert {(one["name"], one["in"]) for one in operation["parameters"] if "name" in one} == {
        ("plant_id", "path"), ("note", "query"),
    }  # fmt: skip


def test_query_parameters_keep_the_contract_s_rules(document: Any) -> None:
    parameters = {one["name"]: one for one in document["paths"]["/plants/"]["get"]["parameters"]}
    assert parameters["limit"]["schema"] == {"type": "integer", "format": "int32", "minimum": 1, "maximum": 200}
    assert parameters["state"]["schema"]["items"]["enum"] == ["growing", "thirsty"]
    assert parameters["window.since"]["schema"] == {"type": "string", "format": "date-time"}
    assert "filter" not in parameters


def test_a_wrapper_is_described_as_what_it_wraps(document: Any) -> None:
    plant = document["components"]["schemas"]["Plant"]["properties"]
    assert plant["watered"] == {"type": ["boolean", "null"]}
    assert plant["genome"] == {"type": ["string", "null"], "contentEncoding": "base64"}
    assert plant["prices"] == {"type": "array", "items": {"type": "integer", "format": "int64"}}
    asked = document["components"]["schemas"]["PlantInput"]["properties"]
    assert asked["ratio"] == {"type": ["number", "null"], "format": "double"}
    assert body_schema(document, "/plants/{plant_id}/nickname", "put") == {"type": "string", "maxLength": 20}
    parameters = {one["name"]: one["schema"] for one in document["paths"]["/plants/"]["get"]["parameters"]}
    assert parameters["remark"] == {"type": "string", "maxLength": 5}
    assert parameters["price"]["items"] == {"type": "integer", "format": "int64", "minimum": 0}
    assert parameters["shown"]["type"] == "string"
    assert not any("Value" in name or name == "FieldMask" for name in document["components"]["schemas"])


def test_a_body_that_is_a_list_or_a_map_keeps_its_rules(document: Any) -> None:
    labels = {"type": "object", "additionalProperties": {"type": "integer", "format": "int64"}}
    assert body_schema(document, "/plants/{plant_id}/labels", "put") == labels | {"maxProperties": 3}
    bodies = {
        name: document["paths"][f"/plants/{{plant_id}}/{name}"]["put"]["requestBody"] for name in ("labels", "tags")
    }
    assert {name: body["required"] for name, body in bodies.items()} == {"labels": False, "tags": True}
    tags = {"type": "array", "items": {"type": "string"}}
    assert body_schema(document, "/plants/{plant_id}/tags", "put") == tags | {"maxItems": 3}
    answered = document["paths"]["/plants/{plant_id}/labels"]["put"]["responses"]["200"]["content"]
    assert answered["application/json"]["schema"] == labels


def test_a_message_of_protobuf_s_own_may_be_all_that_is_asked_and_answered(document: Any) -> None:
    count = document["paths"]["/plants:count"]["get"]
    schema = count["responses"]["200"]["content"]["application/json"]["schema"]
    assert (count["parameters"], schema) == ([], {"type": "integer", "format": "int64"})
    assert body_schema(document, "/floor:sweep", "post") == {
        "type": "object", "properties": {}, "additionalProperties": False,
    }  # fmt: skip


def test_of_fields_that_exclude_each_other_one_is_given_at_most(document: Any) -> None:
    schema = document["components"]["schemas"]["PlantInput"] | {"components": document["components"]}
    plant = jsonschema.Draft202012Validator(schema)
    for taken in ({}, {"shelf": "top"}, {"shelf": "top", "ground": None}, {"shelf": None, "ground": None}):
        assert plant.is_valid(taken)
    assert not plant.is_valid({"shelf": "top", "ground": {}})


def test_only_what_may_be_missing_is_answered_as_null() -> None:
    paths = describe(load_methods(shipped_packages()), {}, "1.2.3")["paths"]
    run, latest = (
        paths[path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        for path in ("/runs/{run_id}", "/runs/task/{task_id}/latest")
    )
    assert latest == {"anyOf": [run, {"type": "null"}]}


def test_free_json_may_be_anything(document: Any) -> None:
    plant = document["components"]["schemas"]["Plant"]["properties"]
    assert (plant["reading"], plant["readings"]) == ({}, {"type": ["array", "null"], "items": {}})
    assert plant["notes"] == {"type": ["object", "null"], "additionalProperties": True}
    assert not any(name.startswith(("Value", "Null")) for name in document["components"]["schemas"])


def test_only_what_changes_something_takes_a_key(document: Any) -> None:
    key = {"$ref": "#/components/parameters/IdempotencyKey"}
    assert key in document["paths"]["/plants"]["post"]["parameters"]
    assert key not in document["paths"]["/plants/"]["get"]["parameters"]


def test_what_is_versioned_takes_and_answers_a_tag(document: Any) -> None:
    tag = {"$ref": "#/components/parameters/IfMatch"}
    versioned, other = (document["paths"][path]["put"] for path in ("/plants/{plant_id}/pot", "/beds/{id}"))
    assert [tag in one["parameters"] for one in (versioned, other)] == [True, False]
    assert ["ETag" in one["responses"]["200"].get("headers", {}) for one in (versioned, other)] == [True, False]


def test_of_two_names_of_a_value_the_first_is_told(document: Any) -> None:
    state = document["components"]["schemas"]["PlantState"]
    assert state["enum"] == ["unspecified", "growing", "thirsty"]
    assert state["description"].splitlines()[-2:] == ["- `growing`: It grows.", "- `thirsty`: It is thirsty."]


def test_a_key_that_the_contract_insists_on_is_required(document: Any) -> None:
    (key,) = document["paths"]["/seeds"]["post"]["parameters"]
    assert (key["name"], key["in"], key["required"]) == ("Idempotency-Key", "header", True)
    assert key["schema"] == {"type": "string", "format": "uuid"}
    assert "required" not in document["components"]["parameters"]["IdempotencyKey"]


def test_a_download_has_its_media_type(document: Any) -> None:
    for path, media_type in (("/plants.csv", "text/csv"), ("/frogs.ndjson", "application/x-ndjson")):
        assert document["paths"][path]["get"]["responses"]["200"]["content"].keys() == {media_type}


def test_events_are_described_as_they_come(document: Any) -> None:
    content = document["paths"]["/plants:watch"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    data = content["schema"]["properties"]["data"]
    assert (data["type"], data["contentMediaType"]) == ("string", "application/json")
    jsonschema.validate(
        orjson.loads(content["example"]["data"]), data["contentSchema"] | {"components": document["components"]}
    )


def test_only_an_open_method_needs_no_token(document: Any) -> None:
    assert document["security"] == [{"bearerAuth": []}]
    open_ones = [path for path, all_ in document["paths"].items() for one in all_.values() if one.get("security") == []]
    assert open_ones == ["/gate"]


def statuses(document: Any, path: str, verb: str) -> set[int]:
    return {int(status) for status in document["paths"][path][verb]["responses"]}


def test_an_operation_says_how_it_can_fail(document: Any) -> None:
    always = {400, 429, 431, 500, 503, 504}
    assert statuses(document, "/plants/", "get") == {200, 401, 403, *always}
    assert statuses(document, "/plants/{plant_id}", "get") == {200, 401, 403, 404, *always}
    assert statuses(document, "/plants", "post") == {201, 401, 403, 408, 409, 413, 415, 422, *always}
    # It needs no token, but its comment says what becomes of a bad ticket.
    assert statuses(document, "/gate", "post") == {200, 401, 408, 413, 415, *always}


def test_a_problem_is_shown_as_it_would_be_answered(document: Any) -> None:
    answers = document["components"]["responses"]
    missing = answers["NotFound"]["content"]["application/problem+json"]["example"]
    assert (missing["type"], missing["title"], missing["status"]) == ("/problems/not-found", "Not Found", 404)
    for answer in answers.values():
        content = answer["content"]["application/problem+json"]
        jsonschema.validate(content["example"], content["schema"] | {"components": document["components"]})


def test_the_headers_of_an_answer_are_told(document: Any) -> None:
    planted = document["paths"]["/plants"]["post"]["responses"]["201"]["headers"]
    assert planted.keys() == {"X-Request-ID", "Idempotent-Replayed", "Location"}
    assert "Retry-After" in document["components"]["responses"]["TooManyRequests"]["headers"]


async def test_answers_are_as_described(client: httpx2.AsyncClient, document: Any) -> None:
    created = await client.post("/plants", json={"name": "basil", "state": "growing", "notes": {}})
    listed = await client.get("/plants/")
    missing = await client.get("/plants/none")
    for answer, operation, status in (
        (created, document["paths"]["/plants"]["post"], "201"),
        (listed, document["paths"]["/plants/"]["get"], "200"),
    ):
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), schema | {"components": document["components"]})
    problem = document["components"]["schemas"]["Problem"]
    jsonschema.validate(missing.json(), problem)


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_a_page_loads_nothing_from_elsewhere(client: httpx2.AsyncClient, page: str) -> None:
    answer = await client.get(page, headers={"Authorization": ""})
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    addresses = re.findall(r'(?:src|href|spec-url)="([^"]+)"', answer.text)
    assert addresses
    for address in addresses:
        assert address.startswith("/")
        assert (await client.get(address, headers={"Authorization": ""})).status_code == 200


async def test_the_document_is_open_to_everybody(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/openapi.json", headers={"Authorization": ""})
    assert answer.json()["openapi"] == "3.1.0"


async def test_the_root_leads_to_the_docs(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


async def test_no_other_file_is_an_asset(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/docs/assets/..%2F__init__.py")).status_code == 404
