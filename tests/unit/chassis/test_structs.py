"""Free JSON to protobuf and back."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.structs import from_struct, from_value, to_struct, to_value

_numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)
_texts = st.text(max_size=8)
_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=8,
)
# The machine may be busy with other things.
_quick = settings(max_examples=50, deadline=None)


@_quick
@given(st.dictionaries(_texts, _json, max_size=4))
def test_a_dict_of_json_comes_back_as_it_was(values: dict[str, Any]) -> None:
    assert from_struct(to_struct(values)) == values


@_quick
@given(_json)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    returned = from_value(to_value(value))
    assert returned == value
    assert isinstance(returned, bool) == isinstance(value, bool)


@pytest.mark.parametrize(("number", "expected"), [(3.0, 3), (-0.0, 0), (2.0**53, 2**53)])
def test_whole_numbers_come_back_as_ints(number: float, expected: int) -> None:
    returned = from_value(to_value(number))
    assert returned == expected
    assert isinstance(returned, int)


@pytest.mark.parametrize("number", [0.5, 2.0**53 * 4, float("inf")])
def test_other_numbers_stay_floats(number: float) -> None:
    returned = from_value(to_value(number))
    assert returned == number
    assert isinstance(returned, float)


def test_a_value_that_was_never_set_is_null() -> None:
    assert from_value(type(to_value(None))()) is None


def test_a_hundred_levels_are_no_problem() -> None:
    nested: Any = "core"
    for level in range(100):
        nested = {"inner": nested} if level % 2 else [nested]
    assert from_value(to_value(nested)) == nested
