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


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("path", "template", "values"),
    [
        ("/a/7", "/a/{id=*}", {"id": "7"}),
        ("/a/7%3A8", "/a/{id=*}", {"id": "7:8"}),
        ("/shelves/1/books/2", "/{name=shelves/*/books/*}", {"name": "shelves/1/books/2"}),
        ("/shelves/1/books/2:lend", "/{name=shelves/*/books/*}:lend", {"name": "shelves/1/books/2"}),
        ("/shelves/1/books/", "/{rest=**}", {"rest": "shelves/1/books/"}),
        # An escaped slash is no slash: as it came where there are others, and decoded where there cannot be any.
        ("/shelves/a%2Fb%20c/books/%2f", "/{name=shelves/*/books/*}", {"name": "shelves/a%2Fb c/books/%2f"}),
        ("/a/%2F", "/a/{id=*}", {"id": "/"}),
        ("/files", "/files/{path=**}", {"path": ""}),
        ("/files/", "/files/{path=**}", {"path": ""}),
        ("/files/a/b.c/", "/files/{path=**}", {"path": "a/b.c/"}),
        ("/files/a/b:print", "/files/{path=**}:print", {"path": "a/b"}),
        ("/files/a/b:print/", "/files/{path=**}", {"path": "a/b:print/"}),
        ("/files/print", "/files/{path=**}", {"path": "print"}),
        ("/files/a:b", "/files/{path=**}", {"path": "a:b"}),
        ("/files/:print", "/files/{path=**}:print", {"path": ""}),
        ("/files/index", "/files/index", {}),
        ("/files/index/a", "/files/{path=**}", {"path": "index/a"}),
        ("/files/by/me", "/files/by/{owner}", {"owner": "me"}),
        ("/files/by/me/all", "/files/{path=**}", {"path": "by/me/all"}),
        ("/x/any/y", "/x/*/y", {}),
        ("/x/one/y", "/x/one/y", {}),
        ("/x/y", "/{rest=**}", {"rest": "x/y"}),
        ("/z/1/2/3", "/z/**", {}),
        ("/z:all", "/z:all", {}),
        ("/plan/a/b", "/{kind=plan}/a/{id}", {"kind": "plan", "id": "b"}),
        ("/plan/a:shut", "/{kind=plan/a}:shut", {"kind": "plan/a"}),
        ("", "/{rest=**}", {"rest": ""}),
    ],
)
def test_a_template_may_have_wildcards_of_every_kind(
    path: str, template: str, values: dict[str, str], order: int
) -> None:
    templates = [
        *("/a/{id=*}", "/{name=shelves/*/books/*}", "/{name=shelves/*/books/*}:lend", "/{rest=**}", "/x/*/y"),
        *("/files/{path=**}", "/files/{path=**}:print", "/files/index", "/files/by/{owner}", "/x/one/y", "/z/**"),
        *("/z:all", "/{kind=plan}/a/{id}", "/{kind=plan/a}:shut"),
    ]
    route, found = router(*templates[::order]).match("GET", path.encode())
    assert (route.template, found) == (template, values)


def test_a_verb_at_the_end_is_not_lost_with_a_slash_behind_it() -> None:
    assert router("/files/{path=**}:print").match("GET", b"/files/a/b:print/")[1] == {"path": "a/b"}


@pytest.mark.parametrize("path", ["/x//y", "/x/1/2/y", "/shelves/1/books", "/shelves//books/2", "/files/a"])
def test_one_segment_is_one_segment(path: str) -> None:
    built = router("/x/*/y", "/{name=shelves/*/books/*}", "/files/{path=**}:print")
    with pytest.raises(NotFound):
        built.match("GET", path.encode())


def test_the_same_paths_have_one_owner_whatever_they_fill() -> None:
    with pytest.raises(ConfigurationError, match="declared twice"):
        router("/{name=shelves/*}:lend", "/shelves/{id}:lend")


@pytest.mark.parametrize(
    "template",
    [
        *("a", "", "*", "/a/{id", "/a/{Id}", "/a b", "/a/{id}x", "/a/***", "/a*", "/a/{id=}", "/a/{id=b//*}", "/a}"),
        *("/**/a", "/{a=**}/{b}", "/{a=**/b}", "/{a=b/{c}}", "/{id}/{id}", "/{id}:stop/a", "/{id}:", "/{a.}"),
    ],
)
def test_a_template_that_cannot_be_served_stops_the_start(template: str) -> None:
    with pytest.raises(ConfigurationError):
        router(template)
