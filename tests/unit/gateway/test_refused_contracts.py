"""What a contract may say that cannot be served, which the gateway says when it starts."""

from dataclasses import replace

import pytest
from google.api import http_pb2

from services.chassis.config import ConfigurationError
from services.gateway import descriptors
from services.gateway.descriptors import Method, load_methods
from services.gateway.path_template import parameter_names
from services.gateway.request_form import RequestForm
from services.gateway.transcode.parser import Parsers
from tests.unit.gateway.garden import PACKAGE, Contract


@pytest.fixture
def listing(contract: Contract) -> Method:
    """A method whose request has fields of every kind."""
    [found] = [one for one in load_methods([PACKAGE]) if one.descriptor.name == "ListPlants"]
    return found


def start(method: Method, rule: http_pb2.HttpRule) -> None:
    """What is done at the start with a method that has this rule."""
    ruled = replace(method, bindings=tuple(descriptors._bindings(rule)))
    descriptors._check(ruled)
    for binding in ruled.bindings:
        RequestForm(ruled, binding, parameter_names(binding.template), Parsers())


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (http_pb2.HttpRule(custom={"kind": "HEAD", "path": "/plants"}), "use one of get, put, post, delete, patch"),
        (http_pb2.HttpRule(get="/plants", body="*"), "GET has no body"),
        (http_pb2.HttpRule(post="/plants", body="colour"), "no such field"),
        (http_pb2.HttpRule(post="/plants", body="window.since"), "no such field"),
        (http_pb2.HttpRule(get="/plants", response_body="colour"), "no such field"),
        (http_pb2.HttpRule(get="/plants/{colour}"), "no such field"),
        (http_pb2.HttpRule(get="/plants/{window}"), "no such field"),
        (http_pb2.HttpRule(get="/plants/{state}"), "no such field"),
        (http_pb2.HttpRule(get="/plants/{labels}"), "no such field"),
        (http_pb2.HttpRule(get="/plants/{filter=**}"), "no such field"),
        (http_pb2.HttpRule(get="/plants/{cursor=**}/all"), "is not its last segment"),
    ],
)
def test_a_rule_that_cannot_be_served_stops_the_start(listing: Method, rule: http_pb2.HttpRule, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        start(listing, rule)


@pytest.mark.parametrize("name", ["cursor", "limit", "edible", "window.since", "seed", "shown", "watered", "remark"])
def test_a_path_may_fill_whatever_is_one_text(listing: Method, name: str) -> None:
    start(listing, http_pb2.HttpRule(get=f"/plants/{{{name}}}"))
