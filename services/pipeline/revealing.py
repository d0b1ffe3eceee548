"""Puts the values of secrets where a rendered value refers to them. Done last, by who hands the value on."""

from collections.abc import Callable
from typing import Any

from services.pipeline.errors import TemplateError
from services.pipeline.secrets import SecretReference, SecretText
from services.pipeline.templates import compile_template, member, render

MAX_REVEALED_CHARACTERS = 1024 * 1024
"""Characters that all references of one value may become."""

TEXT_RULE = "may hold no other template than ${secrets.NAME}; a literal ${ is written $${"

Lookup = Callable[[str], str]
"""Answers the value of a secret by its name. Raises TemplateError."""


def refers_to_secrets(value: Any) -> bool:
    """Whether there is anything in a rendered value to reveal. Asked before every call, so it is quick."""
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind is not list:
        return kind is SecretText
    for item in value:  # noqa: SIM110 - any() takes twice as long
        if refers_to_secrets(item):
            return True
    return False


def reveal(value: Any, lookup: Lookup, field: str = "with") -> Any:
    """A rendered value with the secrets' own values in it; the same one when it refers to none.

    Raises TemplateError, which begins with the path of the string (`with.headers.token: ...`), where `lookup` does,
    and when the values have more than MAX_REVEALED_CHARACTERS in all.
    """
    return _Revealing(lookup).reveal(value, field) if refers_to_secrets(value) else value


def read_text(text: str, field: str = "text") -> str:
    """A text, such as a value of a tool server's `env`, that may refer to secrets and holds no other template.

    Raises TemplateError, which repeats nothing of a text that may itself be a secret.
    """
    if "$" not in text:
        return text
    try:
        if not any(compile_template(text).expressions):
            rendered: str = render(text, {})
            return rendered
    except TemplateError:
        pass
    raise TemplateError(f"{field}: {TEXT_RULE}")


class _Revealing:
    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._left = MAX_REVEALED_CHARACTERS

    def reveal(self, value: Any, field: str) -> Any:
        if isinstance(value, SecretText):
            return "".join(self._text(part, field) for part in value.parts)
        if isinstance(value, dict):
            return {key: self.reveal(item, member(field, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [self.reveal(item, f"{field}[{position}]") for position, item in enumerate(value)]
        return value

    def _text(self, part: str | SecretReference, field: str) -> str:
        if isinstance(part, str):
            return part
        try:
            text = self._lookup(part.name)
        except TemplateError as error:
            raise TemplateError(f"{field}: {error}") from None
        self._left -= len(text)
        if self._left < 0:
            raise TemplateError(f"{field}: the secrets have more than {MAX_REVEALED_CHARACTERS} characters in all")
        return text
