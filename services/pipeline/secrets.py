"""References to secrets, `${secrets.NAME}`. A pipeline knows their names alone; only a worker knows their values."""

from collections.abc import Iterable
from dataclasses import dataclass

from services.pipeline.errors import TemplateError, clip
from services.pipeline.expressions import Expression
from services.pipeline.names import is_name

NAME_RULE = "1 to 64 letters, digits and underscores, and begins with no digit"


@dataclass(frozen=True)
class SecretReference:
    """A secret by its name."""

    name: str

    def __str__(self) -> str:
        return f"${{secrets.{self.name}}}"


class SecretText(str):
    """A rendered string that refers to secrets. It reads as it is shown: `Bearer ${secrets.github_token}`.

    So whoever passes it on without `revealing.reveal` passes on no value. What counts is the type: text that a tool
    or a parameter brought may read just like that and refers to nothing.
    """

    parts: tuple[str | SecretReference, ...]

    def __new__(cls, parts: Iterable[str | SecretReference]) -> "SecretText":
        pieces = tuple(parts)
        text = super().__new__(cls, "".join(map(str, pieces)))
        text.parts = pieces
        return text


def reference(expression: Expression) -> SecretReference | None:
    """The secret that the expression names, if that is all it does. Raises TemplateError when it is no name."""
    match expression.tree:
        case {"type": "subexpression", "children": [{"type": "field", "value": "secrets"}, {"type": "field"} as last]}:
            if not is_name(last["value"]):
                raise TemplateError(f"{clip(last['value'])!r} is no secret's name, which has {NAME_RULE}")
            return SecretReference(last["value"])
    return None
