"""What is told holds no secret, whatever form it comes in."""

import base64
import json
import re
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.redaction import MASK, SHORTEST, Redaction

PLAIN = "ghp_4fT9vXw2"
ODD = "p/ä+ \"q\\u~'&?"
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\nshort\n-----END KEY-----"
KNOWN = Redaction([PLAIN, ODD, KEY])


def test_the_value_alone_is_masked_and_the_rest_stays() -> None:
    assert KNOWN.clean(f"token={PLAIN}; {PLAIN}") == "token=***; ***"
    assert KNOWN.clean({"a": [f"x{PLAIN}y", 1, True, None, 1.5], PLAIN: {"b": "c"}}) == {
        "a": ["x***y", 1, True, None, 1.5],
        MASK: {"b": "c"},
    }


def test_what_holds_no_secret_is_the_same_object() -> None:
    value = {"a": ["text", {"b": 1}], "c": "ghp_4fT9vXw"}
    assert KNOWN.clean(value) is value
    assert Redaction().clean(value) is value


def escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


FORMS = {
    "as it is": ODD,
    "in JSON": escaped(ODD),
    "in JSON with letters beyond ASCII": orjson.dumps(ODD).decode()[1:-1],
    "in JSON inside JSON": escaped(escaped(ODD)),
    "in JSON with slashes escaped": escaped(ODD).replace("/", "\\/"),
    "in JSON that is safe in HTML": escaped(ODD).replace("&", "\\u0026"),
    "in Python": repr(ODD)[1:-1],
    "in Python beside quotes": repr([f"'{ODD}'"])[4:-4],
    "percent-encoded": quote(ODD, safe=""),
    "as a path": quote(ODD),
    "as a form": quote_plus(ODD),
    "as encodeURIComponent does": quote(ODD, safe="!*'()"),
    "with every reserved character": quote(ODD, safe="").replace("~", "%7E"),
    "in hexadecimal digits": ODD.encode().hex(),
    "in upper case hexadecimal digits": ODD.encode().hex().upper(),
    "with lower case digits": re.sub("%..", lambda found: found[0].lower(), quote(ODD, safe="")),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_forms_in_which_a_value_is_found(form: str) -> None:
    assert KNOWN.clean(f"before {form} after") == "before *** after"
    assert KNOWN.clean({"text": f"before {form} after"}) == {"text": "before *** after"}


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("value", [PLAIN, ODD, "12345678", "0123456789"])
def test_base64_is_found_wherever_the_value_stands_in_what_was_encoded(encode: Any, value: str) -> None:
    known = Redaction([value])
    assert known.clean(encode(value.encode()).decode()) == MASK
    for before in ("", "u", "us", "use:", "user:"):
        for after in ("", "x", "xy", "xyz"):
            encoded = encode(f"{before}{value}{after}".encode()).decode()
            cleaned = known.clean(encoded)
            assert MASK in cleaned
            # At most a character on either side, which bits of a neighbour share.
            assert len(encoded) - len(cleaned) + len(MASK) >= len(value) * 8 // 6 - 1


def test_the_lines_of_a_value_are_found_one_by_one() -> None:
    assert KNOWN.clean(["MIIEvQIBADANBgkqhkiG", "short", "-----END KEY-----"]) == [MASK, "short", MASK]
    assert KNOWN.clean(f"key: {KEY}.") == "key: ***."


def test_a_value_that_holds_another_is_masked_as_a_whole() -> None:
    assert Redaction(["hunter22", "hunter22-and-more"]).clean("hunter22-and-more hunter22") == "*** ***"


def test_a_mask_completes_no_other_value() -> None:
    assert Redaction(["begin***", PLAIN]).clean(f"begin{PLAIN}") == MASK
    assert "****" not in Redaction(["****", PLAIN]).clean(PLAIN * 2)


def test_a_number_that_is_a_secret_becomes_text() -> None:
    known = Redaction(["83749201", "0.12345678"])
    assert known.clean({"pin": 83749201, "other": 83749202, "part": 0.12345678, "in": 1837492015, "on": True}) == {
        "pin": MASK,
        "other": 83749202,
        "part": MASK,
        "in": MASK,
        "on": True,
    }


def test_what_is_no_json_is_cleaned_all_the_same() -> None:
    assert KNOWN.clean({"a": 2**70, "b": PLAIN, "c": float("nan"), "d": (PLAIN,)})["b"] == MASK


def test_values_too_short_are_not_searched() -> None:
    value = {"abc": "abc"}
    assert Redaction(["abc", ""]).clean(value) is value


_VALUES = st.lists(st.text(min_size=SHORTEST, max_size=12), min_size=1, max_size=3)
_DULL = st.lists(st.text(alphabet="ab*", min_size=SHORTEST, max_size=6), min_size=1, max_size=3)


@st.composite
def told(draw: st.DrawFn) -> tuple[list[str], Any]:
    """Values, and JSON with them in it as they are, written as JSON, percent-encoded, cut and joined."""
    values = draw(st.one_of(_VALUES, _DULL))
    pieces = st.one_of(
        st.sampled_from(values),
        st.sampled_from([escaped(value) for value in values]),
        st.sampled_from([quote(value, safe="") for value in values]),
        st.sampled_from([value[:2] for value in values]),
        st.sampled_from([value[2:] for value in values]),
        st.text(max_size=3),
    )
    texts = st.lists(pieces, max_size=4).map("".join)
    leaves = st.one_of(texts, st.integers(), st.none(), st.booleans())
    nested = st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
        max_leaves=8,
    )
    return values, draw(nested)


def texts(value: Any) -> list[str]:
    match value:
        case dict():
            return [text for key, item in value.items() for text in (key, *texts(item))]
        case list():
            return [text for item in value for text in texts(item)]
    return [str(value)]


@given(told())
def test_no_value_survives_wherever_it_is(case: tuple[list[str], Any]) -> None:
    values, value = case
    cleaned = Redaction(values).clean(value)
    for text in texts(cleaned):
        for secret in values:
            if text in ("True", "False", "None"):
                continue
            assert secret not in text
            assert escaped(secret) not in text
            assert quote(secret, safe="") not in text


@given(_VALUES, st.binary(max_size=5), st.binary(max_size=5))
def test_no_value_survives_in_base64(values: list[str], before: bytes, after: bytes) -> None:
    whole = base64.b64encode(before + values[0].encode() + after).decode()
    cleaned = Redaction(values).clean({"x": [whole]})["x"][0]
    assert cleaned != whole
