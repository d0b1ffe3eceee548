"""What the OpenAPI document allows is taken: schemathesis makes requests of the schemas, and the gateway reads them."""

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
import protovalidate
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from starlette.requests import Request

from services.chassis.errors import InvalidArgument
from services.gateway.descriptors import VERSION_HEADER, Method, load_methods
from services.gateway.documentation import shipped_packages
from services.gateway.openapi.document import describe
from services.gateway.path_template import parameter_names
from services.gateway.request_form import RequestForm
from services.gateway.transcode.parser import Parsers

METHODS = load_methods(shipped_packages())
PARSERS = Parsers()


@pytest.fixture(scope="module")
def described() -> Any:
    schema = schemathesis.openapi.from_dict(orjson.loads(orjson.dumps(describe(METHODS, {}, "1.2.3"))))
    # No text may have the character NUL, which a schema has no good word for.
    schema.config.generation.allow_x00 = False
    return schema


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.descriptor.full_name)
def test_what_the_document_allows_is_taken(method: Method, described: Any) -> None:
    binding = method.bindings[0]
    form = RequestForm(method, binding, parameter_names(binding.template), PARSERS)
    requests_of = described[binding.template][binding.verb].as_strategy(
        generation_mode=schemathesis.GenerationMode.POSITIVE
    )

    @seed(1)
    @settings(
        max_examples=4,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests_of)
    def is_taken(case: Any) -> None:
        # A version in the body and another in a header is a fault that no schema can tell.
        case.headers.pop(VERSION_HEADER, None)
        assert list(faults(form, case)) == []

    is_taken()


def faults(form: RequestForm, case: Any) -> Iterator[str]:
    values = {name: unquote(str(value)) for name, value in case.path_parameters.items()}
    try:
        message = asyncio.run(form.read(sent(case), values))
    except InvalidArgument as refused:
        yield refused.message
    else:
        yield from (str(violation.proto) for violation in protovalidate.collect_violations(message))


def sent(case: Any) -> Request:
    """The request as it would arrive."""
    parts = case.as_transport_kwargs(base_url="http://gateway")
    known = ("method", "url", "params", "headers", "json", "data")
    prepared = requests.Request(**{name: parts[name] for name in known if name in parts}).prepare()
    scope = {
        "type": "http",
        "method": prepared.method,
        "query_string": urlsplit(str(prepared.url)).query.encode(),
        "headers": [(name.lower().encode(), str(value).encode("latin-1")) for name, value in prepared.headers.items()],
    }

    async def receive() -> Any:
        body = prepared.body or b""
        return {"type": "http.request", "body": body.encode() if isinstance(body, str) else body}

    return Request(scope, receive)
