"""Which endpoint a path leads to."""

import pytest
from starlette.requests import Request
from starlette.responses import Response

from services.chassis.config import ConfigurationError
from services.chassis.errors import InvalidArgument, NotFound
from services.gateway.problems import MethodNotAllowed
from services.gateway.routes import Router, Values


async def nowhere(request: Request, values: Values) -> Response:
    return Response()


def router(*templates: str) -> Router:
    built = Router()
    for template in templates:
        built.add("GET", template, nowhere)
    return built


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("path", "template", "values"),
    [
        ("/", "/", {}),
        ("/a", "/a", {}),
        ("/a/", "/a/", {}),
        ("/a.csv", "/a.csv", {}),
        ("/a:find", "/a:find", {}),
        ("/a/latest", "/a/latest", {}),
        ("/a/7", "/a/{id}", {"id": "7"}),
        ("/a/7:stop", "/a/{id}:stop", {"id": "7"}),
        ("/a/7:8", "/a/{id}", {"id": "7:8"}),
        ("/a/7:8:stop", "/a/{id}:stop", {"id": "7:8"}),
        ("/a/:stop", "/a/{id}", {"id": ":stop"}),
        ("/a/latest/b/c", "/a/{id}/b/{part.name}", {"id": "latest", "part.name": "c"}),
        ("/a/x%2Fy%20z", "/a/{id}", {"id": "x/y z"}),
        ("/a/%6Catest", "/a/latest", {}),
    ],
)
def test_a_literal_wins_over_a_parameter_in_any_order(
    path: str, template: str, values: dict[str, str], order: int
) -> None:
    templates = ["/", "/a", "/a/", "/a.csv", "/a:find", "/a/latest", "/a/{id}", "/a/{id}:stop", "/a/{id}/b/{part.name}"]
    route, found = router(*templates[::order]).match("GET", path.encode())
    assert (route.template, found) == (template, values)


@pytest.mark.parametrize(("path", "template"), [("/b/", "/b"), ("/a/7/", "/a/{id}"), ("/a/", "/a/")])
def test_a_trailing_slash_leads_to_the_same_place(path: str, template: str) -> None:
    assert router("/a", "/a/", "/a/{id}", "/b").match("GET", path.encode())[0].template == template


@pytest.mark.parametrize("path", ["/b", "/a//", "/a/7//", "//a", "/a/7/b", ""])
def test_a_path_that_no_template_has_is_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        router("/a", "/a/{id}").match("GET", path.encode())


@pytest.mark.parametrize("path", [b"/a/%ff", b"/a/\xff"])
def test_a_path_that_is_not_utf8_is_refused(path: bytes) -> None:
    with pytest.raises(InvalidArgument):
        router("/a/{id}").match("GET", path)


def test_a_wrong_method_is_told_the_right_ones() -> None:
    built = router("/a/{id}", "/a/latest")
    built.add("PUT", "/a/{name}", nowhere)
    with pytest.raises(MethodNotAllowed) as raised:
        built.match("POST", b"/a/7")
    assert raised.value.allowed == ["GET", "PUT"]
    assert built.match("PUT", b"/a/7")[1] == {"name": "7"}
    # A literal is a place of its own, with its own methods.
    with pytest.raises(MethodNotAllowed):
        built.match("PUT", b"/a/latest")


def test_one_place_has_one_owner() -> None:
    with pytest.raises(ConfigurationError, match="declared twice"):
        router("/a/{id}", "/a/{name}")


@pytest.mark.parametrize("template", ["a", "/a/*", "/a/**", "/a/{id=b/*}", "/a/{id", "/a/{Id}", "/a b"])
def test_a_template_that_cannot_be_served_stops_the_start(template: str) -> None:
    with pytest.raises(ConfigurationError):
        router(template)
