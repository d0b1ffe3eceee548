"""What a request is told when it breaks the contract's rules."""

from types import ModuleType
from typing import Any

import pytest

from services.chassis import validation
from services.chassis.errors import InvalidArgument
from services.chassis.structs import to_struct, to_value


def _broken(request: Any) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as refusal:
        validation.check(request)
    return {violation.field: violation.description for violation in refusal.value.violations}


def test_a_request_within_the_rules_passes(messages: ModuleType) -> None:
    payload = to_struct({"pipeline": [{"uses": "echo.test", "timeout": 1.5}], "empty": None})
    validation.check(messages.BuyRequest(title="Sunday", payload=payload, labels={"a": "b"}))


def test_every_broken_rule_is_told_and_the_first_is_the_message(messages: ModuleType) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        validation.check(messages.BuyRequest(lines=[messages.Line(text="x" * 11)]))
    assert [violation.field for violation in refusal.value.violations] == ["title", "lines[0].text"]
    assert refusal.value.message.startswith("title: ")
    assert refusal.value.message.endswith(" (and 1 more)")


def test_paths_into_lists_and_maps_are_readable(messages: ModuleType) -> None:
    request = messages.BuyRequest(
        title="Sunday",
        lines=[messages.Line(text="fine"), messages.Line(text="much too long")],
        labels={"size": "enormous"},
        copies={7: "too many"},
    )
    assert set(_broken(request)) == {"lines[1].text", "labels.size", "copies.7"}


def test_values_of_enums_are_named_as_callers_write_them(messages: ModuleType) -> None:
    lines = [messages.Line(size=0), messages.Line(size=3), messages.Line(folded_to=[1, 0, 9])]
    assert _broken(messages.BuyRequest(title="Sunday", lines=lines)) == {
        "lines[0].size": "is required: one of full, half",
        "lines[1].size": "must be one of full, half",
        "lines[2].folded_to[1]": "is required: one of full, half, none_left",
        "lines[2].folded_to[2]": "must be one of full, half, none_left",
    }


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"request_id": "a\x00"}, "request_id"),
        ({"lines": [{}, {"text": "\x00"}]}, "lines[1].text"),
        ({"labels": {"k": "\x00"}}, "labels.k"),
        ({"labels": {"\x00": "v"}}, "labels"),
        ({"payload": to_struct({"pipeline": [{"uses": "a\x00b"}]})}, "payload.pipeline[0].uses"),
        ({"payload": to_struct({"params": {"\x00": 1}})}, "payload.params"),
        ({"payload": to_struct({"list": [[1, "\x00"]]})}, "payload.list[0][1]"),
        ({"lines": [{"value": to_value({"deep": "\x00"})}]}, "lines[0].value.deep"),
    ],
)
def test_the_character_nul_is_refused_wherever_it_is(messages: ModuleType, fields: dict[str, Any], path: str) -> None:
    broken = _broken(messages.BuyRequest(title="Sunday", **fields))
    assert broken == {path: "must not contain the character NUL"}


def test_zero_bytes_that_are_no_text_pass(messages: ModuleType) -> None:
    validation.check(messages.BuyRequest(title="Sunday", payload=to_struct({"half": 0.5, "escaped": "\\u0000"})))
    validation.check(messages.LookResponse(data=b"\x00\x00"))
