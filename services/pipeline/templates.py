"""Templates: `${ JMESPath }` in the strings of a step's `with`.

A string that is one expression becomes its value, type and all; inside text a value is written out: text as it is,
everything else as canonical JSON. `$${` is a literal `${`. What is missing is an error that names the path. Keys of
objects are not rendered. A string that refers to secrets, `${secrets.NAME}`, becomes a `SecretText`, without their
values.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from services.pipeline import canonical
from services.pipeline.budget import Budget
from services.pipeline.errors import ExpressionError, TemplateError, clip
from services.pipeline.expressions import Expression, compile_expression
from services.pipeline.missing import Missing
from services.pipeline.secrets import SecretReference, SecretText, reference

MAX_RENDERED_BYTES = 1024 * 1024
"""Bytes of JSON that one step's rendered input may have."""

_OPEN = "${"
_ESCAPED = "$${"
_QUOTES = "'\"`"
_CACHED = 2048
# A cached template holds its text; longer ones are rare and are read again.
_LONGEST_CACHED = 4096


@dataclass(frozen=True)
class Template:
    """A string cut into literal text, expressions, and references to secrets."""

    parts: tuple[str | Expression | SecretReference, ...]

    @property
    def expressions(self) -> Iterator[Expression]:
        return (part for part in self.parts if isinstance(part, Expression))

    @cached_property
    def refers_to_secrets(self) -> bool:
        return any(isinstance(part, SecretReference) for part in self.parts)


def compile_template(text: str) -> Template:
    """Reads a string. Raises TemplateError."""
    return _cached(text) if len(text) <= _LONGEST_CACHED else _read(text)


def render(value: Any, context: Mapping[str, Any], field: str = "with", budget: Budget | None = None) -> Any:
    """`value` with every string in it rendered.

    Raises TemplateError, which begins with the path of the faulty string (`with.time: ...`), also when the result
    would have more than MAX_RENDERED_BYTES of JSON. Whoever renders several values may give them one budget.
    """
    budget = budget or Budget()
    try:
        rendered = _render(value, context, field, budget)
        Budget(MAX_RENDERED_BYTES).measure(rendered)
        size = len(canonical.encode(rendered))
    except ExpressionError as error:
        raise TemplateError(f"{field}: {error}") from None
    except RecursionError:
        raise TemplateError(f"{field}: nested too deeply") from None
    except ValueError as error:
        raise TemplateError(f"{field}: {clip(str(error), 200)}") from None
    if size > MAX_RENDERED_BYTES:
        raise TemplateError(f"{field}: rendered it has {size} bytes, at most {MAX_RENDERED_BYTES}")
    return rendered


def member(field: str, key: str) -> str:
    """The path of a member: `with.time`, or `with["my key"]` where a plain name would be misread."""
    return f"{field}.{key}" if key.isidentifier() else f'{field}["{clip(key, 40)}"]'


@lru_cache(_CACHED)
def _cached(text: str) -> Template:
    return _read(text)


def _render(value: Any, context: Mapping[str, Any], field: str, budget: Budget) -> Any:
    if isinstance(value, str):
        return _render_text(value, context, field, budget)
    if isinstance(value, Mapping):
        return {key: _render(item, context, member(field, str(key)), budget) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_render(item, context, f"{field}[{position}]", budget) for position, item in enumerate(value)]
    return value


def _render_text(text: str, context: Mapping[str, Any], field: str, budget: Budget) -> Any:
    if "$" not in text:
        return text
    try:
        template = compile_template(text)
        parts = template.parts
        values = [_find(part, context, budget) if isinstance(part, Expression) else part for part in parts]
        if template.refers_to_secrets:
            return SecretText(map(_as_part, parts, values))
        if len(parts) == 1:
            return values[0]
        return "".join(map(_as_part, parts, values))
    except (ExpressionError, TemplateError) as error:
        raise TemplateError(f"{field}: {error}") from None


def _find(expression: Expression, context: Mapping[str, Any], budget: Budget) -> Any:
    found = expression.evaluate(context, budget)
    if isinstance(found, Missing):
        raise TemplateError(str(found))
    return found


def _as_part(part: str | Expression | SecretReference, value: Any) -> Any:
    return _as_text(part, value) if isinstance(part, Expression) else part


def _as_text(expression: Expression, value: Any) -> str:
    if value is None:
        raise TemplateError(f"{clip(expression.text.strip())} is null, which has no place inside text")
    return value if isinstance(value, str) else canonical.encode(value).decode()


def _read(text: str) -> Template:
    parts: list[str | Expression | SecretReference] = []
    literal, position = "", 0
    while (found := text.find("$", position)) >= 0:
        literal += text[position:found]
        if text.startswith(_ESCAPED, found):
            literal, position = literal + _OPEN, found + len(_ESCAPED)
        elif text.startswith(_OPEN, found):
            end = _end_of_expression(text, found + len(_OPEN))
            parts += [literal] if literal else []
            parts.append(_compile(text[found + len(_OPEN) : end]))
            literal, position = "", end + 1
        else:
            literal, position = literal + "$", found + 1
    literal += text[position:]
    return Template((*parts, literal) if literal or not parts else tuple(parts))


def _compile(text: str) -> Expression | SecretReference:
    try:
        expression = compile_expression(text.strip())
    except ExpressionError as error:
        raise TemplateError(str(error)) from None
    return reference(expression) or expression


def _end_of_expression(text: str, start: int) -> int:
    """Where the `}` is that closes the expression: not one inside quotes, backticks or braces of its own."""
    depth, position = 0, start
    while position < len(text):
        character = text[position]
        if character in _QUOTES:
            position = _end_of_quote(text, position)
        elif character == "{":
            depth += 1
        elif character == "}":
            if depth == 0:
                return position
            depth -= 1
        position += 1
    raise TemplateError(f'"{clip(text[start - len(_OPEN) :])}" is not closed; a literal ${{ is written $${{')


def _end_of_quote(text: str, start: int) -> int:
    position = start + 1
    while position < len(text) and text[position] != text[start]:
        position += 2 if text[position] == "\\" else 1
    return position
