"""JSON onto messages and back: against protobuf's own JSON where the rules agree, and by example where they do not."""

import math
from typing import Any

import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as Any_
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.chassis.config import ConfigurationError
from services.gateway.transcode.faults import Faults
from services.gateway.transcode.parser import Parsers
from services.gateway.transcode.printer import Printers
from tests.unit.gateway.garden import Contract
from tests.unit.gateway.messages import JSON, TEXT, expected_json, messages

_FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


PRINTERS, PARSERS = Printers(), Parsers()


def to_json(message: Any) -> Any:
    return orjson.loads(orjson.dumps(PRINTERS.of(message.DESCRIPTOR)(message)))


def from_json(contract: Contract, value: Any) -> Any:
    plant = contract.plant()
    PARSERS.of(plant.DESCRIPTOR)(plant, value, 0)
    return plant


def faults(contract: Contract, value: Any) -> list[tuple[str, str]]:
    with pytest.raises(Faults) as raised:
        from_json(contract, value)
    return raised.value.found


@_FEW
@given(data=st.data())
def test_messages_are_printed_as_protobuf_prints_them(contract: Contract, data: st.DataObject) -> None:
    message = data.draw(messages(contract.messages.Plant.DESCRIPTOR))
    assert to_json(message) == expected_json(message)


@_FEW
@given(data=st.data())
def test_what_protobuf_prints_is_read_as_the_same_message(contract: Contract, data: st.DataObject) -> None:
    message = data.draw(messages(contract.messages.Plant.DESCRIPTOR))
    printed = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert from_json(contract, orjson.loads(orjson.dumps(printed))) == message


@_FEW
@given(data=st.data())
def test_what_is_printed_can_be_sent_back(contract: Contract, data: st.DataObject) -> None:
    printed = to_json(data.draw(messages(contract.messages.Plant.DESCRIPTOR)))
    assert to_json(from_json(contract, printed)) == printed


@settings(_FEW, max_examples=60)
@given(data=st.data())
def test_nothing_is_read_that_protobuf_refuses_or_reads_otherwise(contract: Contract, data: st.DataObject) -> None:
    # Protobuf's field masks are in camelCase, and ours are not.
    names = sorted(set(contract.messages.Plant.DESCRIPTOR.fields_by_name) - {"shown", "views"})
    value = data.draw(st.dictionaries(st.sampled_from(names) | TEXT, JSON, max_size=4))
    try:
        message = from_json(contract, value)
    except Faults:
        return
    assert message == json_format.ParseDict(value, contract.plant())


@given(st.integers(0, 2**32 - 1))
@example(0x7F7FFFFF)
@example(1)
@settings(_FEW)
def test_a_32_bit_float_keeps_its_value(contract: Contract, bits: int) -> None:
    warmth = memoryview(bits.to_bytes(4, "little")).cast("f")[0]
    if math.isfinite(warmth):
        assert from_json(contract, to_json(contract.plant(warmth=warmth))).warmth == warmth


def test_a_32_bit_float_is_printed_short(contract: Contract) -> None:
    assert to_json(contract.plant(warmth=0.1))["warmth"] == 0.1


def test_unset_is_null_where_it_differs_from_empty(contract: Contract) -> None:
    printed = to_json(contract.plant())
    null = {name for name, value in printed.items() if value is None}
    assert null == {
        *("height", "planted_at", "light", "notes", "reading", "readings", "pot", "shelf", "ground", "parent"),
        *("nickname", "mood", "shown", "nothing", "watered", "remark", "genome", "rank", "row", "price", "code"),
        *("chill", "ratio", "slow", "still"),
    }
    assert (printed["name"], printed["water"], printed["tags"], printed["labels"]) == ("", 0, [], {})
    assert printed["state"] == "unspecified"


def test_set_to_its_default_is_not_unset(contract: Contract) -> None:
    printed = to_json(contract.plant(height=0, nickname="", pot={}, shelf=""))
    assert (printed["height"], printed["nickname"], printed["shelf"]) == (0, "", "")
    assert printed["pot"] == {"width": 0, "material": ""}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("watered", False), ("watered", True), ("remark", ""), ("remark", "x"), ("genome", ""), ("genome", "AQI="),
        ("rank", 0), ("rank", -7), ("row", 2**32 - 1), ("price", -(2**63)), ("code", 2**64 - 1), ("chill", 0.1),
        ("ratio", 0.0), ("ratio", 1e300), ("prices", [0, 2**53 + 1]), ("chills", {"a": 0.0, "b": -0.1}), ("slow", 0),
    ],
)  # fmt: skip
def test_a_wrapper_is_its_bare_value_and_set_whatever_that_is(contract: Contract, name: str, value: Any) -> None:
    plant = from_json(contract, {name: value})
    assert to_json(plant)[name] == value
    assert plant == json_format.ParseDict({name: value}, contract.plant())
    assert [field.name for field, _ in plant.ListFields()] == [name]


@pytest.mark.parametrize(
    ("text", "paths"),
    [("", []), ("name", ["name"]), ("planted_at,pot.width,a1", ["planted_at", "pot.width", "a1"])],
)
def test_a_field_mask_is_a_string_of_names(contract: Contract, text: str, paths: list[str]) -> None:
    plant = from_json(contract, {"shown": text})
    assert plant.HasField("shown")
    assert (list(plant.shown.paths), to_json(plant)["shown"]) == (paths, text)


@pytest.mark.parametrize(
    "value", [",", "a,", ",a", "a,,b", "a, b", "A", "plantedAt", "a.", ".a", "1a", "a\n", ["a"], {}, 1]
)
def test_a_field_mask_of_something_else_is_refused(contract: Contract, value: Any) -> None:
    assert faults(contract, {"shown": value}) == [("shown", "must be names of fields with commas between them")]


def test_a_message_without_fields_is_an_empty_object(contract: Contract) -> None:
    plant = from_json(contract, {"nothing": {}})
    assert plant.HasField("nothing")
    assert to_json(plant)["nothing"] == {}


def test_an_enum_value_from_a_newer_contract_is_printed_as_its_number(contract: Contract) -> None:
    assert to_json(contract.plant(state=77))["state"] == 77


@pytest.mark.parametrize(
    ("number", "text"), [(3.0, b"3"), (2.5, b"2.5"), (1e300, b"1e300"), (2.0**63, b"9.223372036854775808e18")]
)
def test_a_free_number_is_printed_as_an_integer_when_it_is_one(contract: Contract, number: float, text: bytes) -> None:
    printed = orjson.dumps(PRINTERS.of(Value.DESCRIPTOR)(Value(number_value=number)))
    assert orjson.loads(printed) == number
    assert (b"e" in printed or b"." in printed) == (b"e" in text or b"." in text)


def test_an_integer_may_be_written_with_a_fraction_of_nothing(contract: Contract) -> None:
    plant = from_json(contract, {"height": 5.0, "water": -1e3})
    assert (plant.height, plant.water) == (5, -1000)


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("2026-01-02T03:04:05Z", 1767323045, 0),
        ("2026-01-02t03:04:05.5z", 1767323045, 500_000_000),
        ("2026-01-02T03:04:05.123456789+05:30", 1767303245, 123_456_789),
        ("2026-01-01T22:04:05-05:00", 1767323045, 0),
        ("1969-12-31T23:59:59.999999Z", -1, 999_999_000),
        ("0001-01-01T00:00:00Z", -62_135_596_800, 0),
        ("9999-12-31T23:59:59Z", 253_402_300_799, 0),
    ],
)
def test_a_time_is_read_with_any_offset(contract: Contract, text: str, seconds: int, nanos: int) -> None:
    time = from_json(contract, {"planted_at": text}).planted_at
    assert (time.seconds, time.nanos) == (seconds, nanos)


@pytest.mark.parametrize(
    "text",
    [
        *("2026-01-02", "2026-01-02T03:04:05", "2026-01-02 03:04:05Z", "20260102T030405Z", "2026-13-01T00:00:00Z"),
        *("2026-01-02T24:00:00Z", "2026-01-02T03:04:60Z", "2026-01-02T03:04:05+24:00", "0001-01-01T00:00:00+00:01"),
        *("2026-01-02T03:04:05.Z", "٢026-01-02T03:04:05Z", "", "now"),
    ],
)
def test_a_time_that_is_none_is_refused(contract: Contract, text: str) -> None:
    assert faults(contract, {"planted_at": text})[0][0] == "planted_at"


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, "1970-01-01T00:00:00.000000Z"),
        (-1, 999_999_999, "1969-12-31T23:59:59.999999Z"),
        (-62_135_596_800, 0, "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_a_time_is_printed_with_microseconds(contract: Contract, seconds: int, nanos: int, text: str) -> None:
    plant = contract.plant(planted_at=Timestamp(seconds=seconds, nanos=nanos))
    assert to_json(plant)["planted_at"] == text


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"name": 5}, [("name", "must be a string")]),
        ({"edible": "true"}, [("edible", "must be true or false")]),
        ({"height": True}, [("height", "must be an integer from -2147483648 to 2147483647")]),
        ({"height": "5"}, [("height", "must be an integer from -2147483648 to 2147483647")]),
        ({"height": 5.5}, [("height", "must be an integer from -2147483648 to 2147483647")]),
        ({"height": 2**31}, [("height", "must be an integer from -2147483648 to 2147483647")]),
        ({"leaves": -1}, [("leaves", "must be an integer from 0 to 4294967295")]),
        ({"steps": "18446744073709551616"}, [("steps", "must be an integer from 0 to 18446744073709551615")]),
        ({"mass": "1"}, [("mass", "must be a number")]),
        ({"mass": math.inf}, [("mass", "must be a number")]),
        ({"warmth": 1e39}, [("warmth", "is too large for a 32-bit float")]),
        ({"seed": "!"}, [("seed", "must be base64")]),
        ({"seed": "é"}, [("seed", "must be base64")]),
        ({"state": 1}, [("state", "must be one of growing, thirsty")]),
        ({"light": "5"}, [("light", "must be a number of seconds with an s, such as 1.5s")]),
        ({"light": "999999999999s"}, [("light", "must be a number of seconds with an s, such as 1.5s")]),
        ({"tags": "a"}, [("tags", "must be a list")]),
        ({"tags": [None]}, [("tags[0]", "must be a string")]),
        ({"notes": []}, [("notes", "must be an object")]),
        ({"readings": {}}, [("readings", "must be a list")]),
        ({"labels": {"a": 1}}, [("labels.a", "must be a string")]),
        ({"labels": []}, [("labels", "must be an object")]),
        ({"counts": {"yes": 1}}, [("counts.yes", "must be true or false")]),
        ({"pot": []}, [("pot", "must be an object")]),
        ({"pot": {"depth": 1}}, [("pot.depth", "is not known; known are width, material")]),
        ({"spare_pots": [{}, {"width": "wide"}]},
         [("spare_pots[1].width", "must be an integer from -2147483648 to 2147483647")]),
        ({"notes": {"a": [{"b": 2**53 + 1}]}},
         [("notes.a[0].b", "is an integer too large to keep exactly here: send it as a string")]),
        ({"shelf": "top", "ground": {}}, [("ground", "only one of shelf, ground may be given")]),
        ({"slow": 0, "still": {}}, [("still", "only one of slow, still may be given")]),
        ({"nothing": {"a": 1}}, [("nothing.a", "is not known; nothing can be given here")]),
        ({"nothing": 0}, [("nothing", "must be an object")]),
        ({"remark": {"value": "x"}}, [("remark", "must be a string")]),
        ({"watered": "true"}, [("watered", "must be true or false")]),
        ({"genome": "!"}, [("genome", "must be base64")]),
        ({"rank": 2**31}, [("rank", "must be an integer from -2147483648 to 2147483647")]),
        ({"chill": 1e39}, [("chill", "is too large for a 32-bit float")]),
        ({"prices": [1, None, "x"]},
         [("prices[1]", "must be an integer from -9223372036854775808"), ("prices[2]", "")]),
        ({"chills": {"a": None}}, [("chills.a", "must be a number")]),
        ({"x" * 101: 1}, [("x" * 100 + "...", "")]),
    ],
)  # fmt: skip
def test_a_fault_is_described_at_its_place(
    contract: Contract, value: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    got = faults(contract, value)
    assert [place for place, _ in got] == [place for place, _ in found]
    assert got[0][1].startswith(found[0][1])


def test_null_stands_for_not_given(contract: Contract) -> None:
    nothing = {name: None for name in contract.messages.Plant.DESCRIPTOR.fields_by_name if name != "reading"}
    assert from_json(contract, nothing) == contract.plant()


def test_null_is_a_value_where_any_json_is_one(contract: Contract) -> None:
    assert from_json(contract, {"reading": None}).reading.WhichOneof("kind") == "null_value"


def test_an_empty_message_is_given(contract: Contract) -> None:
    assert from_json(contract, {"pot": {}, "notes": {}}).HasField("pot")


def test_a_message_within_itself_is_read_only_so_deep(contract: Contract) -> None:
    value: dict[str, Any] = {}
    for _ in range(1000):
        value = {"parent": value}
    assert faults(contract, value) == [(".".join(["parent"] * 30), "is nested deeper than 30 levels")]


@pytest.mark.parametrize("kind", [HttpBody, Any_])
def test_a_type_without_a_json_form_is_refused_when_compiled(kind: Any) -> None:
    for compilers in (Printers(), Parsers()):
        with pytest.raises(ConfigurationError, match=kind.DESCRIPTOR.full_name):
            compilers.of(kind.DESCRIPTOR)
