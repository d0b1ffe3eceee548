"""What a client of REST sees: requests through the gateway to a backend that it knows only by its descriptors."""

import json
import uuid
from collections.abc import AsyncIterator

import httpx2
import pytest
from google.protobuf.json_format import MessageToDict

from services.chassis.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    Violation,
)
from tests.unit.gateway.garden import ACCESS_TOKEN, OWN_JWT, TOKEN, Contract, Garden, start_backend

NO_TIME = "must be an RFC 3339 time with an offset, such as 2026-01-02T03:04:05Z"
PARAMETERS = (
    *("limit", "cursor", "state", "window.since", "window.lasting", "edible", "mass", "water", "at", "seed", "shown"),
    *("watered", "remark", "price", "genome", "shelf", "bed"),
)


async def test_a_created_resource_is_answered_whole(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/plants", json={"name": "basil", "state": "growing", "notes": {"sun": [1, 2.5, None]}})
    assert answer.status_code == 201
    body = answer.json()
    assert (body["name"], body["state"], body["notes"]) == ("basil", "growing", {"sun": [1, 2.5, None]})
    assert body["height"] is None
    assert body["tags"] == []


async def test_path_values_reach_the_request(client: httpx2.AsyncClient, garden: Garden) -> None:
    await client.get("/beds/north%20side/plants/a%2Fb")
    request = garden.greenhouse.requests[0]
    assert (request.bed, request.plant_id) == ("north side", "a/b")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/houses/h-1/spots/s%2F1", {"house": "h-1", "spot": "s/1"}),
        ("/houses/h-1/benches/b-1", {"name": "houses/h-1/benches/b-1"}),
        ("/houses/h-1/benches/b%20%2F1:measure", {"name": "houses/h-1/benches/b %2F1"}),
        ("/maps/north/corner:3", {"name": "north/corner:3"}),
        ("/maps/north/corner:print", {"name": "north/corner"}),
        ("/maps/legend:print", {}),
        ("/signs/red/spots/s-1", {"spot": "s-1"}),
        ("/signs/red/green", {}),
    ],
)
async def test_a_path_may_be_of_every_form_that_contracts_have(
    client: httpx2.AsyncClient, path: str, found: dict[str, str]
) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"house": "", "spot": "", "name": ""} | found)


async def test_query_values_reach_the_request(client: httpx2.AsyncClient, garden: Garden) -> None:
    answer = await client.get(
        "/plants/?limit=7&state=growing&state=PLANT_STATE_THIRSTY&edible=true&mass=-1.5e3&water=9007199254740993"
        "&window.since=2026-01-02T03:04:05%2B02:00&window.lasting=1.5s&at=1970-01-01T00:00:00Z&seed=AQI"
    )
    assert answer.status_code == 200
    request = garden.greenhouse.requests[0]
    assert (request.limit, list(request.state), request.edible) == (7, [1, 2], True)
    assert (request.mass, request.water, request.seed) == (-1500.0, 9007199254740993, b"\x01\x02")
    assert request.window.since.ToJsonString() == "2026-01-02T01:04:05Z"
    assert request.window.lasting.ToJsonString() == "1.500s"
    assert [time.seconds for time in request.at] == [0]


async def test_a_value_may_have_two_names(client: httpx2.AsyncClient, garden: Garden) -> None:
    assert (await client.get("/plants/?state=dry&state=thirsty")).status_code == 200
    assert list(garden.greenhouse.requests[0].state) == [2, 2]
    assert (await client.post("/plants", json={"name": "basil", "state": "dry"})).json()["state"] == "thirsty"


async def test_a_query_may_have_wrapped_values_and_the_names_of_fields(
    client: httpx2.AsyncClient, garden: Garden
) -> None:
    query = "shown=name,pot.width&watered=false&remark=&price=0&price=-9007199254740993&genome=AQI&bed=b-1"
    assert (await client.get(f"/plants/?{query}")).status_code == 200
    request = garden.greenhouse.requests[0]
    assert list(request.shown.paths) == ["name", "pot.width"]
    assert [request.HasField(name) for name in ("watered", "remark")] == [True, True]
    assert (request.watered.value, request.remark.value, request.genome.value) == (False, "", b"\x01\x02")
    assert [price.value for price in request.price] == [0, -9007199254740993]
    for query, is_given in (("", False), ("?shown=", True)):
        assert (await client.get(f"/plants/{query}")).status_code == 200
        assert garden.greenhouse.requests[-1].HasField("shown") is is_given
        assert not garden.greenhouse.requests[-1].HasField("watered")


@pytest.mark.parametrize(
    ("path", "value", "answered"),
    [
        ("labels", {"b": 2, "a": "1"}, {"a": 1, "b": 2}),
        ("labels", {}, {}),
        ("tags", ["b", "a"], ["b", "a"]),
        ("nickname", "Bas", "Bas"),
        ("nickname", "", ""),
        ("nickname", None, None),
    ],
)
async def test_a_body_and_an_answer_may_be_a_field_of_any_kind(
    client: httpx2.AsyncClient, garden: Garden, path: str, value: object, answered: object
) -> None:
    content = json.dumps(value).encode()
    answer = await client.put(f"/plants/p-1/{path}", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (200, answered)
    assert garden.greenhouse.requests[0].plant_id == "p-1"


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [("labels", {"a": "x"}, "labels.a"), ("tags", ["a", 1], "tags[1]"), ("nickname", {"value": "x"}, "nickname")],
)
async def test_a_fault_in_a_body_that_is_a_field_is_named(
    client: httpx2.AsyncClient, path: str, value: object, field: str
) -> None:
    answer = await client.put(f"/plants/p-1/{path}", json=value)
    assert (answer.status_code, [fault["field"] for fault in answer.json()["errors"]]) == (400, [field])


async def test_a_request_and_an_answer_may_be_messages_of_protobuf_s_own(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/plants:count")).json() == 0
    assert (await client.post("/floor:sweep")).json() == {}
    refused = await client.post("/floor:sweep", json={"twice": True})
    assert refused.json()["errors"] == [{"field": "twice", "message": "is not known; nothing can be given here"}]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05Z"),
        ("2026-01-02 03:04:05.5", "2026-01-02T03:04:05.500Z"),
        ("2026-01-02 03:04:05-02:00", "2026-01-02T05:04:05Z"),
        ("2026-01-02", "2026-01-02T00:00:00Z"),
    ],
)
async def test_a_query_may_have_times_as_people_write_them(
    client: httpx2.AsyncClient, garden: Garden, text: str, instant: str
) -> None:
    assert (await client.get("/plants/", params={"window.since": text})).status_code == 200
    assert garden.greenhouse.requests[0].window.since.ToJsonString() == instant


@pytest.mark.parametrize(("text", "value"), [("True", True), ("1", True), ("False", False), ("0", False)])
async def test_a_query_may_have_truth_as_languages_write_it(
    client: httpx2.AsyncClient, garden: Garden, text: str, value: bool
) -> None:
    assert (await client.get("/plants/", params={"edible": text})).status_code == 200
    assert garden.greenhouse.requests[0].edible is value


async def test_a_body_can_fill_one_field_and_the_query_the_others(client: httpx2.AsyncClient) -> None:
    answer = await client.patch("/plants/p-1?dry_run=true", json={"name": "thyme", "id": "ignored"})
    assert answer.json()["plant"]["id"] == "p-1"
    assert answer.json()["plant"]["name"] == "thyme"
    assert answer.json()["dry_run"] is True


@pytest.mark.parametrize("verb", ["PATCH", "PUT"])
async def test_a_change_tells_which_fields_it_gives_null_included(
    client: httpx2.AsyncClient, garden: Garden, verb: str
) -> None:
    body = {"state": "growing", "label": None, "pot": {"width": 3}}
    answer = await client.request(verb, "/beds/b-1", json=body)
    assert answer.json() == {"changed": ["label", "pot", "state"], "label": None}
    request = garden.greenhouse.requests[0]
    assert (request.id, request.HasField("label"), request.state, request.pot.width) == ("b-1", False, 1, 3)


async def test_a_change_of_one_field_tells_which_of_its_fields_it_gives(
    client: httpx2.AsyncClient, garden: Garden
) -> None:
    body = {"name": None, "water": 0, "remark": None, "watered": False, "pot": {"width": 3}, "tags": []}
    answer = await client.patch("/plants/p-1?dry_run=true", json=body | {"id": "another"})
    assert answer.json()["changed"] == ["name", "pot", "remark", "tags", "water", "watered"]
    request = garden.greenhouse.requests[0]
    assert (request.plant.id, request.dry_run, request.plant.HasField("remark")) == ("p-1", True, False)
    assert request.plant.HasField("watered")
    refused = await client.patch("/plants/p-1?update_mask=name", json={})
    assert refused.json()["errors"] == [{"field": "update_mask", "message": "is given by the names in the body"}]


@pytest.mark.parametrize("body", [b"", b"{}", b" { } ", b"null"])
async def test_a_patch_that_gives_nothing_says_so(client: httpx2.AsyncClient, body: bytes) -> None:
    answer = await client.patch("/beds/b-1", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == (400 if body == b"null" else 200)
    assert answer.json().get("changed", []) == []


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"update_mask": "label"}, "update_mask", "is given by the names in the body"),
        ({"colour": None}, "colour", "is not known; known are label, length, state, pot"),
        ({"id": "b-2"}, "id", "is given by the path"),
    ],
)
async def test_a_patch_s_names_are_checked(
    client: httpx2.AsyncClient, garden: Garden, body: dict[str, object], field: str, message: str
) -> None:
    answer = await client.patch("/beds/b-1", json=body)
    assert (answer.status_code, answer.json()["errors"]) == (400, [{"field": field, "message": message}])
    assert garden.greenhouse.requests == []


async def test_a_path_may_end_in_a_slash_or_not(client: httpx2.AsyncClient, garden: Garden) -> None:
    for path in ("/beds/b-1", "/beds/b-1/"):
        assert (await client.patch(path, json={"label": "x"})).status_code == 200
    assert [request.id for request in garden.greenhouse.requests] == ["b-1", "b-1"]
    assert (await client.get("/plants.csv/")).status_code == 200


@pytest.mark.parametrize("body", [None, b"", b"{}"])
async def test_a_post_may_have_no_body_and_take_its_fields_from_the_query(
    client: httpx2.AsyncClient, garden: Garden, body: bytes | None
) -> None:
    answer = await client.post("/plants/p-1/harvest?note=ripe", content=body, headers={"Idempotency-Key": "k"})
    assert answer.json() == {"plant_id": "p-1", "note": "ripe"}
    assert garden.greenhouse.requests[0].request_id == "k"
    refused = await client.post("/plants/p-1/harvest", json={"note": "ripe"})
    assert (refused.status_code, refused.json()["reason"]) == (400, "BODY_UNEXPECTED")


async def test_a_verb_ends_a_parameter(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/plants/p-1:water", json={"amount": "12"})
    assert answer.json() == {"plant_id": "p-1", "amount": 12}


async def test_an_empty_body_is_an_empty_object(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/plants/p-1:water")).json() == {"plant_id": "p-1", "amount": 0}


async def test_an_unset_resource_is_null(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/plants/favourite")).json() is None


async def test_every_fault_is_named_with_its_place(client: httpx2.AsyncClient, garden: Garden) -> None:
    answer = await client.post(
        "/plants",
        json={
            "name": 5,
            "state": "blue",
            "colour": "red",
            "like": {"tags": ["a", 1], "pots_by_shelf": {"x": {}, "1": {"width": 1.5}}, "planted_at": "today"},
            "request_id": "k",
        },
    )
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert {fault["field"]: fault["message"] for fault in answer.json()["errors"]} == {
        "name": "must be a string",
        "state": "must be one of growing, thirsty",
        "colour": "is not known; known are name, state, like, notes, tags",
        "like.tags[1]": "must be a string",
        "like.pots_by_shelf.x": "must be an integer from -2147483648 to 2147483647",
        "like.pots_by_shelf.1.width": "must be an integer from -2147483648 to 2147483647",
        "like.planted_at": NO_TIME,
        "request_id": "is given by the Idempotency-Key header",
    }
    assert garden.greenhouse.requests == []


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("limit=many", "limit", "must be an integer from -2147483648 to 2147483647"),
        ("limit=", "limit", "must be an integer from -2147483648 to 2147483647"),
        ("limit=1&limit=2", "limit", "is given more than once"),
        ("state=growing&state=x", "state[1]", "must be one of growing, thirsty"),
        ("edible=yes", "edible", "must be true or false"),
        ("mass=NaN", "mass", "must be a number"),
        ("water=9223372036854775808", "water", "must be an integer from -9223372036854775808 to 9223372036854775807"),
        ("window.since=2026-02-30T00:00:00Z", "window.since", NO_TIME),
        ("filter=1", "filter", f"is not known; known are {', '.join(PARAMETERS)}"),
        ("cursor=%ff", "query", "must be percent-encoded UTF-8"),
        ("shown=name,", "shown", "must be names of fields with commas between them"),
        ("watered=no", "watered", "must be true or false"),
        ("price=1&price=", "price[1]", "must be an integer from -9223372036854775808 to 9223372036854775807"),
        ("labels.a=b", "labels.a", f"is not known; known are {', '.join(PARAMETERS)}"),
        ("pot.width=1", "pot.width", f"is not known; known are {', '.join(PARAMETERS)}"),
        ("shelf=a&bed=b", "bed", "only one of shelf, bed may be given"),
    ],
)  # fmt: skip
async def test_a_faulty_parameter_is_named(client: httpx2.AsyncClient, query: str, field: str, message: str) -> None:
    answer = await client.get(f"/plants/?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": field, "message": message}]


@pytest.mark.parametrize(
    ("verb", "path", "body", "field", "message"),
    [
        ("GET", "/plants/p-1?plant_id=p-2", None, "plant_id", "is given by the path"),
        ("POST", "/plants/p-1:water", b'{"plant_id": "p-2"}', "plant_id", "is given by the path"),
        ("POST", "/plants?name=basil", b"{}", "name", "is given by the body"),
        ("POST", "/plants", b"[]", "body", "must be an object"),
        ("PATCH", "/plants/p-1", b"[]", "plant", "must be an object"),
        ("PATCH", "/plants/p-1", b'{"name": "a", "name": "b"}', "plant.name", "is given more than once"),
        ("PATCH", "/plants/p-1", b'{"water": true}', "plant.water",
         "must be an integer from -9223372036854775808 to 9223372036854775807"),
    ],
)  # fmt: skip
async def test_a_field_has_one_place_to_come_from(
    client: httpx2.AsyncClient, verb: str, path: str, body: bytes | None, field: str, message: str
) -> None:
    answer = await client.request(verb, path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": field, "message": message}]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        (b'{"name": "basil",\n"state" "growing"}', "application/json", 400, "BODY_NOT_JSON"),
        (b'{"mass": NaN}', "application/json", 400, "BODY_NOT_JSON"),
        (b"\xff", "application/json", 400, "BODY_NOT_JSON"),
        (b"[" * 5000 + b"]" * 5000, "application/json", 400, "BODY_NOT_JSON"),
        (b"name: basil", "application/yaml", 415, "MEDIA_TYPE_UNSUPPORTED"),
        (b"{}", "application/json; charset=latin-1", 415, "MEDIA_TYPE_UNSUPPORTED"),
        (b"{}", "", 415, "MEDIA_TYPE_UNSUPPORTED"),
        (b'{"name":"' + b"x" * 1024 * 1024 + b'"}', "application/json", 413, "BODY_TOO_LARGE"),
    ],
    ids=["syntax", "nan", "not utf-8", "deep", "yaml", "charset", "untyped", "large"],
)
async def test_a_body_that_cannot_be_read_is_refused(
    client: httpx2.AsyncClient, garden: Garden, body: bytes, content_type: str, status: int, reason: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await client.post("/plants", content=body, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert garden.greenhouse.requests == []


_TOO_LARGE = "is an integer too large to keep exactly here: send it as a string"
_TWICE = "is given more than once"


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        (b'{"notes": {"a": [18446744073709551617]}}', {"notes.a[0]": _TOO_LARGE}),
        (b'{"notes": {"a": -9223372036854775809}}', {"notes.a": _TOO_LARGE}),
        (
            b'{"notes": {"a": -1' + b"0" * 30 + b'7, "b": 1' + b"0" * 300 + b"}}",
            dict.fromkeys(("notes.a", "notes.b"), _TOO_LARGE),
        ),
        (b'{"name": "a", "name": "b"}', {"name": _TWICE}),
        (
            b'{"name": "a", "\\u006eame": "b", "notes": {"x:y": [{"k": 1, "k": 1}]}}',
            {"name": _TWICE, "notes.x:y[0].k": _TWICE},
        ),
        (b'{"notes": {"a": "\\u003a", "a": ""}}', {"notes.a": _TWICE}),
    ],
    ids=["65 bits", "65 bits, negative", "more", "twice", "twice in disguise", "a hidden colon"],
)
async def test_what_would_not_be_kept_as_it_was_sent_is_refused(
    client: httpx2.AsyncClient, garden: Garden, body: bytes, errors: dict[str, str]
) -> None:
    answer = await client.post("/plants", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert {error["field"]: error["message"] for error in answer.json()["errors"]} == errors
    assert garden.greenhouse.requests == []


async def test_long_digits_and_colons_in_text_are_no_fault(client: httpx2.AsyncClient, garden: Garden) -> None:
    notes = {"a": "1" * 30, "b": "x:y\u003a", "c": 2**53, "d": [{"e": 1}, {"e": 1}], "f": 1e300}
    text = json.dumps({"name": "basil", "notes": notes}).replace("y:", "y\\u003a")
    answer = await client.post("/plants", content=text.encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text
    assert MessageToDict(garden.greenhouse.requests[0].notes) == notes


async def test_invalid_json_says_where(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/plants", content=b'{"a": 1,\n  b}', headers={"Content-Type": "application/json"})
    assert "line 2, column 3" in answer.json()["detail"]


async def test_a_body_of_unknown_length_is_read_no_further_than_the_limit(client: httpx2.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 65536

    answer = await client.post("/plants", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert sent < 20


async def test_a_compressed_body_is_refused(client: httpx2.AsyncClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await client.post("/plants", content=b"{}", headers=headers)
    assert answer.status_code == 415


async def test_a_body_where_none_belongs_is_refused(client: httpx2.AsyncClient) -> None:
    answer = await client.request("GET", "/plants/p-1", json={"a": 1})
    assert (answer.status_code, answer.json()["reason"]) == (400, "BODY_UNEXPECTED")


@pytest.mark.parametrize("depth", [30, 31])
async def test_free_json_is_taken_as_deep_as_every_backend_can_read_it(client: httpx2.AsyncClient, depth: int) -> None:
    # The request is one level, `notes` the next; the objects below it are the rest.
    notes: dict[str, object] = {}
    for _ in range(depth - 2):
        notes = {"a": notes}
    answer = await client.post("/plants", json={"name": "basil", "notes": notes})
    if depth == 30:
        assert answer.status_code == 201
        assert (await client.get("/plants/")).json()["items"][0]["notes"] == notes
    else:
        assert answer.status_code == 400
        assert answer.json()["errors"] == [
            {"field": "notes." + ".".join("a" * (depth - 2)), "message": "is nested deeper than 30 levels"}
        ]


async def test_the_idempotency_key_fills_the_request_and_a_replay_says_so(
    client: httpx2.AsyncClient, garden: Garden
) -> None:
    headers = {"Idempotency-Key": "key-1"}
    answers = [await client.post("/plants", json={"name": "basil"}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true"]
    assert garden.greenhouse.requests[0].request_id == "key-1"


@pytest.mark.parametrize(
    ("tag", "body", "answered"),
    [
        (None, {}, 100),
        ("*", {}, 100),
        (None, {"version": 6}, 7),
        ('"6"', {}, 7),
        ('W/"6"', {}, 7),
        ('"6"', {"version": 6}, 7),
        ("*", {"version": 6}, 7),
    ],
)
async def test_a_tag_names_the_version_that_is_to_be_changed(
    client: httpx2.AsyncClient, tag: str | None, body: dict[str, int], answered: int
) -> None:
    answer = await client.put("/plants/p-1/pot", json=body, headers={"If-Match": tag} if tag else {})
    assert (answer.status_code, answer.json()) == (200, {"version": answered})
    assert answer.headers["etag"] == f'"{answered}"'


@pytest.mark.parametrize("tag", ["", "6", '"0"', '"-1"', '"six"', '"5", "6"', '"1' + "0" * 18 + '"', '"7"'])
async def test_a_tag_that_names_no_version_or_another_one_is_refused(
    client: httpx2.AsyncClient, garden: Garden, tag: str
) -> None:
    answer = await client.put("/plants/p-1/pot", json={"version": 6}, headers={"If-Match": tag})
    assert (answer.status_code, answer.json()["reason"]) == (400, "IF_MATCH_INVALID")
    assert answer.json()["errors"][0]["field"] == "If-Match"
    assert garden.greenhouse.requests == []


async def test_a_tag_means_nothing_where_there_are_no_versions(client: httpx2.AsyncClient) -> None:
    answer = await client.put("/beds/b-1", json={"label": "x"}, headers={"If-Match": "nonsense"})
    assert (answer.status_code, answer.headers.get("etag")) == (200, None)


@pytest.mark.parametrize("state", ["growing", "Growing", "GROWING", "PLANT_STATE_GROWING", "plant_state_growing"])
async def test_the_name_of_a_value_may_be_in_capitals(client: httpx2.AsyncClient, garden: Garden, state: str) -> None:
    assert (await client.post("/plants", json={"name": "basil", "state": state})).status_code == 201
    assert (await client.get(f"/plants/?state={state}")).status_code == 200
    assert (garden.greenhouse.requests[0].state, list(garden.greenhouse.requests[1].state)) == (1, [1])


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "caf\u00e9"])
async def test_a_faulty_idempotency_key_is_refused(client: httpx2.AsyncClient, key: str) -> None:
    answer = await client.post("/plants", json={}, headers={b"Idempotency-Key": key.encode()})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


async def test_a_key_that_a_service_refuses_is_named_as_it_was_sent(client: httpx2.AsyncClient, garden: Garden) -> None:
    garden.greenhouse.fails_with = InvalidArgument.of([Violation("request_id", "must be a valid UUID")])
    answer = await client.post("/plants", json={"name": "basil"}, headers={"Idempotency-Key": "key-1"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Idempotency-Key: must be a valid UUID")
    assert answer.json()["errors"] == [{"field": "Idempotency-Key", "message": "must be a valid UUID"}]


async def test_a_key_that_means_nothing_is_ignored(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/plants/", headers={"Idempotency-Key": "two words"})).status_code == 200


async def test_an_opaque_token_is_exchanged(client: httpx2.AsyncClient, garden: Garden) -> None:
    await client.get("/plants/")
    assert garden.greenhouse.metadata["authorization"] == f"Bearer {ACCESS_TOKEN}"


async def test_a_jwt_is_handed_on(client: httpx2.AsyncClient, garden: Garden) -> None:
    await client.get("/plants/", headers={"Authorization": f"bearer {OWN_JWT}"})
    assert garden.greenhouse.metadata["authorization"] == f"Bearer {OWN_JWT}"


@pytest.mark.parametrize(
    ("credential", "reason"),
    [
        ("", "TOKEN_MISSING"),
        ("Basic dXNlcjpw", "TOKEN_MISSING"),
        ("Bearer ", "TOKEN_MISSING"),
        ("Bearer baton_wrong_secret_crc", "TOKEN_INVALID"),
        ("Bearer something", "TOKEN_INVALID"),
        (f"Bearer {TOKEN} {TOKEN}", "TOKEN_INVALID"),
    ],
)
async def test_nobody_unknown_reaches_a_backend(
    client: httpx2.AsyncClient, garden: Garden, credential: str, reason: str
) -> None:
    answer = await client.post("/plants", content=b"not even json", headers={"Authorization": credential})
    assert (answer.status_code, answer.json()["reason"]) == (401, reason)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert garden.greenhouse.requests == []


async def test_a_method_that_checks_a_credential_itself_needs_no_token(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/gate", json={"ticket": "valid"}, headers={"Authorization": ""})
    assert answer.json() == {"welcome": True}


async def test_an_unknown_path_is_a_problem(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/nothing/here?secret=1")
    assert answer.status_code == 404
    assert answer.json() | {"trace_id": "", "request_id": ""} == {
        "type": "/problems/route-not-found",
        "title": "Not Found",
        "status": 404,
        "detail": "there is nothing at this path; /docs lists what there is",
        "instance": "/nothing/here",
        "code": "NOT_FOUND",
        "reason": "ROUTE_NOT_FOUND",
        "errors": [],
        "trace_id": "",
        "request_id": "",
    }


async def test_a_wrong_http_method_is_told_the_right_ones(client: httpx2.AsyncClient) -> None:
    answer = await client.delete("/plants/p-1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, PATCH")


async def test_a_method_without_an_http_rule_is_not_there(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/greenhouse.v1.GreenhouseService/Prune")).status_code == 404


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidArgument("x"), 400),
        (InvalidArgument("x", reason="IDEMPOTENCY_KEY_REUSED"), 422),
        (PermissionDenied("x"), 403),
        (AlreadyExists("x"), 409),
        (Aborted("x"), 409),
        (FailedPrecondition("x"), 409),
        (ResourceExhausted("x"), 429),
        (Unavailable("x", reason="DATABASE_DOWN"), 503),
        (DeadlineExceeded("x"), 504),
    ],
)
async def test_a_backend_s_error_keeps_its_reason(
    client: httpx2.AsyncClient, garden: Garden, error: ServiceError, status: int
) -> None:
    garden.greenhouse.fails_with = error
    answer = await client.get("/plants/")
    assert (answer.status_code, answer.json()["code"]) == (status, error.code.name)
    assert (answer.json()["reason"], answer.json()["detail"]) == (error.reason, "x")


async def test_a_backend_s_violations_and_delay_are_handed_on(client: httpx2.AsyncClient, garden: Garden) -> None:
    garden.greenhouse.fails_with = Unavailable("x", violations=[Violation("name", "is taken")], retry_after=1.2)
    answer = await client.get("/plants/")
    assert answer.json()["errors"] == [{"field": "name", "message": "is taken"}]
    assert answer.headers["retry-after"] == "2"


@pytest.mark.parametrize("fault", [Internal("SELECT secret"), RuntimeError("SELECT secret")])
async def test_a_fault_of_ours_shows_nothing_of_itself(
    client: httpx2.AsyncClient, garden: Garden, fault: Exception
) -> None:
    garden.greenhouse.fails_with = fault
    answer = await client.get("/plants/")
    assert (answer.status_code, answer.json()["detail"]) == (500, "internal error")
    assert "SELECT" not in answer.text


async def test_a_backend_that_is_down_is_unavailable_and_is_used_again_once_it_is_back(
    client: httpx2.AsyncClient, garden: Garden
) -> None:
    jwt = {"Authorization": f"Bearer {OWN_JWT}"}
    assert (await client.get("/plants/", headers=jwt)).status_code == 200
    await garden.server.stop(None)
    answer = await client.get("/plants/", headers=jwt)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "127.0.0.1" not in answer.text
    server, _, _ = await start_backend(garden.greenhouse, address=garden.address)
    statuses = [503]
    for _ in range(2000):
        if statuses[-1] != 503:
            break
        statuses.append((await client.get("/plants/", headers=jwt)).status_code)
    await server.stop(None)
    assert statuses[-1] == 200


@pytest.mark.parametrize("given", ["abc-1.2_3", "x" * 128])
async def test_the_caller_s_request_id_is_kept(client: httpx2.AsyncClient, garden: Garden, given: str) -> None:
    answer = await client.get("/plants/", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == garden.greenhouse.metadata["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb"])
async def test_a_request_without_a_usable_id_gets_one(client: httpx2.AsyncClient, given: str) -> None:
    answer = await client.get("/nothing", headers={"X-Request-ID": given})
    assert uuid.UUID(answer.headers["x-request-id"])
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_the_contract_is_no_part_of_the_gateway(contract: Contract) -> None:
    assert contract.messages.DESCRIPTOR.package == "greenhouse.v1"
