import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pipeline import canonical


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, "x"]}, '{"a":[true,null,"x"],"b":1}'),
        (5.0, "5"),
        (-0.0, "0"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (123456789012345680000, "123456789012345680000"),
        (1.5e-7, "1.5e-7"),
        (0.000001, "0.000001"),
        (-2.5, "-2.5"),
        (333333333.3333333, "333333333.3333333"),
        ("\u20ac$\u000f\nA'B\"\\", '"€$\\u000f\\nA\'B\\"\\\\"'),
        # Sorted by UTF-16 units, where a pair of surrogates comes before U+FB33.
        ({"\ufb33": 1, "\U0001f600": 2}, '{"\U0001f600":2,"\ufb33":1}'),
    ],
)
def test_a_value_has_the_spelling_of_rfc_8785(value: Any, text: str) -> None:
    assert canonical.encode(value).decode() == text


def test_equal_values_have_one_digest_whatever_their_order_and_number_type() -> None:
    assert canonical.digest({"a": 1.0, "b": {"c": 2, "d": 3}}) == canonical.digest({"b": {"d": 3, "c": 2.0}, "a": 1})
    assert canonical.digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("value", [math.nan, math.inf, {1: 2}, {"a": object()}, "\ud800", 10**400])
def test_what_json_cannot_say_is_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match="not a JSON value"):
        canonical.encode(value)


@given(st.binary(min_size=8, max_size=8).map(lambda raw: struct.unpack("d", raw)[0]).filter(math.isfinite))
def test_every_number_reads_back_as_itself(number: float) -> None:
    assert float(json.loads(canonical.encode(number))) == number
