"""Takes secrets out of what is told: each occurrence of a value becomes `***`.

A value is searched in these forms: as it is; as JSON and Python write it inside quotes, and as JSON inside JSON;
percent-encoded, with whichever reserved characters are left alone; in hexadecimal digits; and in base64, standard and
URL-safe, wherever in the encoded data it stands. Of a value of several lines each line of 8 characters or more is
searched as well, because logs are read line by line. What others make of a value beyond that (a digest, a part, the
reverse) is not recognised.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

import orjson

MASK = "***"
SHORTEST = 4
"""Characters of the shortest text that is searched: longer than the mask, so that replacing comes to an end."""
_SHORTEST_LINE = 8
# What encoders leave as it is: none, RFC 3986 paths, JavaScript's encodeURIComponent and encodeURI.
_LEFT_ALONE = ("", "/", "!*'()", ";,/?:@&=+$!*'()#")
# Base64 characters at the beginning that depend on what stands before, by how far into three bytes the value begins.
_UNCERTAIN = (0, 2, 3)
_URL_SAFE = str.maketrans("+/", "-_")
_HTML_SAFE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&"})
_T = TypeVar("_T")


class Redaction:
    """Knows values and finds them. One of its own for each set of values: it never changes."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        found = {form for value in values for form in forms(value) if len(form) >= SHORTEST}
        # The longest first, so that of a value that holds another nothing is left.
        self._forms = tuple(sorted(found, key=len, reverse=True))
        # One look at the JSON of all there is tells that there is nothing to do, which is nearly always so. A loop of
        # plain searches is the fastest: a regular expression of the same alternatives takes up to twelve times as long.
        self._in_json = tuple(_inside_json(form) for form in self._forms)

    def clean(self, value: _T) -> _T:
        """A JSON value without the secrets, in strings, keys and numbers; the same one when there are none.

        Keys that become the same are one, and a number that is a secret becomes text.
        """
        if not self._forms:
            return value
        if isinstance(value, str):
            return self._text(value)  # type: ignore[return-value]
        try:
            told = orjson.dumps(value).decode()
        except TypeError:  # no JSON, or too much of it
            return self._value(value)  # type: ignore[no-any-return]
        return self._value(value) if any(form in told for form in self._in_json) else value

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {self._value(key): self._value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(item) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value if self._text(str(value)) == str(value) else MASK
        return value

    def _text(self, text: str) -> str:
        # What is left beside a mask may be a value again. Each replacement shortens, so there is an end.
        while found := [form for form in self._forms if form in text]:
            for form in found:
                text = text.replace(form, MASK)
        return text


def forms(value: str) -> Iterator[str]:
    """Every text by which a value is recognised."""
    for text in (value, *_lines(value)):
        yield from _quoted(text)
        yield from _percent_encoded(text)
    data = value.encode()
    yield from (data.hex(), data.hex().upper())
    yield from _base64(data)


def _lines(value: str) -> Iterator[str]:
    lines = (line.strip() for line in value.splitlines())
    return (line for line in lines if len(line) >= _SHORTEST_LINE)


def _quoted(text: str) -> Iterator[str]:
    yield text
    yield from _in_python(text)
    ascii_only = json.dumps(text)[1:-1]
    for once in (_inside_json(text), ascii_only, ascii_only.replace("/", "\\/"), ascii_only.translate(_HTML_SAFE)):
        yield once
        yield _inside_json(once)


def _in_python(text: str) -> Iterator[str]:
    """As `repr` writes it, which escapes an apostrophe or not depending on what else there is."""
    parts = [repr(part)[1:-1] for part in text.split("'")]
    yield "'".join(parts)
    yield "\\'".join(parts)


def _inside_json(text: str) -> str:
    return orjson.dumps(text)[1:-1].decode()


def _percent_encoded(text: str) -> Iterator[str]:
    for encoded in (quote_plus(text), quote_plus(text, safe="*"), *(quote(text, safe=safe) for safe in _LEFT_ALONE)):
        for form in (encoded, encoded.replace("~", "%7E")):
            yield form
            yield _with_small_digits(form)


def _with_small_digits(encoded: str) -> str:
    first, *rest = encoded.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in rest)])


def _base64(data: bytes) -> Iterator[str]:
    """The value alone, with and without padding; and the part that is the same whatever stands around it."""
    alone = b64encode(data).decode()
    yield alone
    yield alone.translate(_URL_SAFE)
    for before, uncertain in enumerate(_UNCERTAIN):
        encoded = b64encode(bytes(before) + data).decode()
        certain = encoded[uncertain : (before + len(data)) * 8 // 6]
        yield certain
        yield certain.translate(_URL_SAFE)
