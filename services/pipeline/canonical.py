"""Canonical JSON (RFC 8785): one spelling per value, so that equal values have equal digests."""

import hashlib
import math
from decimal import Decimal
from typing import Any

import orjson

# Beyond this a double skips integers; RFC 8785 numbers are doubles.
_EXACT_INTEGERS = 2**53
# From here on ECMAScript, whose spelling RFC 8785 takes over, writes an exponent.
_EXPONENT_FROM = 1e21
_EXPONENT_BELOW = 1e-6


def encode(value: Any) -> bytes:
    """The value as canonical JSON: keys sorted, numbers as ECMAScript writes them, no white space.

    Raises ValueError for what JSON cannot say: numbers that are not finite or no double, text with lone
    surrogates, keys that are no text, other types, or nesting beyond 250 levels.
    """
    try:
        return orjson.dumps(_canonical(value))
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a JSON value: {error}") from None


def digest(value: Any) -> str:
    """SHA-256 over the canonical JSON, in hex. Raises ValueError as `encode` does."""
    return hashlib.sha256(encode(value)).hexdigest()


def _canonical(value: Any) -> Any:
    match value:
        case bool() | None | str():
            return value
        case int() | float():
            return _number(value)
        case list() | tuple():
            return [_canonical(item) for item in value]
        case dict():
            return {key: _canonical(value[key]) for key in sorted(value, key=_utf16)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _utf16(key: Any) -> bytes:
    if not isinstance(key, str):
        raise TypeError(f"a key is of type {type(key).__name__}")
    return key.encode("utf-16-be", "surrogatepass")


def _number(value: float) -> Any:
    if not math.isfinite(value):
        raise TypeError("a number is not finite")
    if abs(value) <= _EXACT_INTEGERS and value == int(value):
        return int(value)
    return orjson.Fragment(_ecmascript(float(value)))


def _ecmascript(value: float) -> str:
    """Number.prototype.toString: the shortest digits that read back as the same double."""
    shortest = Decimal(repr(value))
    if _EXPONENT_BELOW <= abs(value) < _EXPONENT_FROM:
        return format(shortest, "f").removesuffix(".0")
    digits = "".join(map(str, shortest.as_tuple().digits)).rstrip("0")
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{'-' if value < 0 else ''}{mantissa}e{shortest.adjusted():+d}"
