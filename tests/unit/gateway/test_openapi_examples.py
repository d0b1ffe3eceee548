"""The examples in the OpenAPI document can be sent as they are, and are what would be answered."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import jsonschema
import orjson
import protovalidate
import pytest
from google.protobuf.message import Message
from starlette.requests import Request

from services.gateway.descriptors import Binding, Method, load_methods
from services.gateway.documentation import shipped_comments, shipped_packages
from services.gateway.openapi.document import describe
from services.gateway.openapi.paths import openapi_path
from services.gateway.path_template import parameter_names
from services.gateway.request_form import RequestForm
from services.gateway.routes import Router, Values
from services.gateway.transcode.parser import Parsers
from tests.unit.gateway.garden import PACKAGE, Contract
from tests.unit.gateway.test_routes import nowhere


@pytest.fixture(scope="module")
def methods(contract: Contract) -> list[Method]:
    return load_methods([*shipped_packages(), PACKAGE])


@pytest.fixture(scope="module")
def document(methods: list[Method], contract: Contract) -> Any:
    return orjson.loads(orjson.dumps(describe(methods, shipped_comments() | contract.comments, "1.2.3")))


def operations(document: Any) -> Iterator[tuple[str, Any]]:
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            yield f"{verb} {path}", operation


def contents(operation: Any) -> Iterator[Any]:
    """What it takes and answers, in each media type."""
    for part in (operation.get("requestBody", {}), *operation["responses"].values()):
        yield from part.get("content", {}).values()


def test_what_is_sent_and_answered_has_an_example_that_its_schema_takes(document: Any) -> None:
    wrong = [
        f"{name}: {fault.json_path}: {fault.message}"
        for name, operation in operations(document)
        for content in [*contents(operation), *operation["parameters"]]
        if "example" in content
        for fault in faults(content["schema"], content["example"], document)
    ]
    assert wrong == []
    without = [name for name, operation in operations(document) for one in contents(operation) if "example" not in one]
    assert without == []


def faults(schema: Any, example: Any, document: Any) -> Iterator[jsonschema.ValidationError]:
    whole = schema | {"components": document["components"]}
    return jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).iter_errors(example)


async def test_an_example_of_a_request_is_taken(methods: list[Method], document: Any) -> None:
    wrong = []
    for method in methods:
        for binding in method.bindings:
            operation = document["paths"][openapi_path(binding.template)[0]][binding.verb.lower()]
            message = await read(method, binding, operation)
            wrong += [f"{operation['operationId']}: {one}" for one in protovalidate.collect_violations(message)]
    assert wrong == []


async def read(method: Method, binding: Binding, operation: Any) -> Message:
    """The request message that the examples of an operation make."""
    names = parameter_names(binding.template)
    form = RequestForm(method, binding, names, Parsers())
    query, headers = (given(operation, place) for place in ("query", "header"))
    asked = request(binding, query, headers, operation.get("requestBody"))
    return await form.read(asked, path_values(binding, operation))


def path_values(binding: Binding, operation: Any) -> Values:
    """What the path that the examples of an operation make holds for each field."""
    router, examples = Router(), given(operation, "path")
    router.add(binding.verb, binding.template, nowhere)
    path = re.sub(r"\{(.*?)\}", lambda place: examples[place[1]], openapi_path(binding.template)[0])
    return router.match(binding.verb, path.encode())[1]


def given(operation: Any, place: str) -> dict[str, str]:
    return {one["name"]: one["example"] for one in operation["parameters"] if "example" in one and one["in"] == place}


def request(binding: Binding, query: Mapping[str, str], headers: Mapping[str, str], body: Any) -> Request:
    content = orjson.dumps(body["content"]["application/json"]["example"]) if body else b""
    sent = {"content-type": "application/json", "content-length": str(len(content))} | headers
    scope = {
        "type": "http",
        "method": binding.verb,
        "query_string": urlencode(query).encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": content}

    return Request(scope, receive)


def test_a_contract_s_own_example_is_preferred(document: Any) -> None:
    body = document["paths"]["/tasks"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert (body["schedule_kind"], body["schedule_expr"]) == ("cron", "0 7 * * 1-5")


def test_an_answer_s_example_has_every_field(document: Any) -> None:
    plant = document["paths"]["/plants/{plant_id}"]["get"]["responses"]["200"]["content"]["application/json"]
    assert plant["example"].keys() == document["components"]["schemas"]["Plant"]["properties"].keys()
