"""JMESPath expressions: read once, checked as far as text alone allows, evaluated within a budget."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from json import loads
from typing import Any, ClassVar

from jmespath import functions, lexer, parser
from jmespath.exceptions import EmptyExpressionError, JMESPathError, LexerError, ParseError

from services.pipeline.budget import Budget
from services.pipeline.errors import ExpressionError, clip
from services.pipeline.interpreter import Interpreter, Node
from services.pipeline.missing import Missing

MAX_LENGTH = 4096
"""Characters per expression."""

# What jmespath and its functions raise on data they were not made for; its own errors are ValueErrors.
_FAULTS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_CACHED = 2048
_FUNCTIONS: Mapping[str, Any] = functions.Functions.FUNCTION_TABLE


@dataclass(frozen=True)
class Expression:
    """A JMESPath expression, ready to be evaluated."""

    text: str
    tree: Node

    def evaluate(self, context: Mapping[str, Any], budget: Budget) -> Any:
        """What the expression finds in `context`; a Missing when that is not there.

        Raises ExpressionError when the expression does not fit the data, when a part of what it builds is missing
        or no JSON, and when `budget` is spent.
        """
        interpreter = Interpreter(budget)
        try:
            result = interpreter.visit(self.tree, context)
        except _FAULTS as error:
            raise ExpressionError(f'"{clip(self.text)}" cannot be evaluated: {clip(str(error), 200)}') from None
        if not isinstance(result, Missing):
            _check_result(result, budget)
        return result


@lru_cache(_CACHED)
def compile_expression(text: str) -> Expression:
    """Reads an expression. Raises ExpressionError that says where it goes wrong."""
    if not text.strip():
        raise ExpressionError("the expression is empty")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"the expression has {len(text)} characters, at most {MAX_LENGTH}")
    try:
        tree = _Parser().read(text)
    except (JMESPathError, IndexError, RecursionError, ValueError) as error:
        raise ExpressionError(f'"{clip(text)}" is no JMESPath: {_syntax_fault(error)}') from None
    _check_functions(tree)
    return Expression(text, tree)


def walk(tree: Node) -> Iterator[Node]:
    """Every node of a syntax tree."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(child for child in node["children"] if isinstance(child, dict))


class _Lexer(lexer.Lexer):
    """Takes only JSON between backticks, where jmespath still tolerates bare words and NaN."""

    def _consume_literal(self) -> Any:
        start = self._position  # type: ignore[attr-defined]
        lexeme = self._consume_until("`").replace("\\`", "`")  # type: ignore[attr-defined]
        try:
            value = loads(lexeme, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise LexerError(start, lexeme, 'between backticks stands JSON, such as `5` or `"text"`') from None
        return {"type": "literal", "value": value, "start": start, "end": self._position}  # type: ignore[attr-defined]


class _Parser(parser.Parser):
    """jmespath's parser over the stricter lexer, without its cache, which any length of text enters.

    `!` takes the whole path that follows: jmespath reads `!a.b` as `(!a).b`, which is never what was meant.
    """

    # Above the comparators (5), below everything that continues a path (9 and more).
    BINDING_POWER: ClassVar[dict[str, int]] = {**parser.Parser.BINDING_POWER, "not": 8}

    def read(self, text: str) -> Node:
        self._tokens = list(_Lexer().tokenize(text))
        self._index = 0
        tree: Node = self._expression(binding_power=0)  # type: ignore[attr-defined]
        rest = self._tokens[self._index]
        if rest["type"] != "eof":
            raise ParseError(rest["start"], rest["value"], rest["type"], "unexpected token")
        return tree


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _syntax_fault(error: Exception) -> str:
    match error:
        case LexerError():
            return f"{_lowered(error.message)} at column {error.lex_position + 1}"
        case ParseError() if error.token_value:
            return f"unexpected {clip(str(error.token_value), 20)!r} at column {error.lex_position + 1}"
        case ParseError() | EmptyExpressionError():
            return "it ends too early"
        case RecursionError():
            return "it is nested too deeply"
    return "it cannot be read"


def _lowered(text: str) -> str:
    return clip(text[:1].lower() + text[1:])


def _check_functions(tree: Node) -> None:
    for node in walk(tree):
        if node["type"] != "function_expression":
            continue
        known = _FUNCTIONS.get(node["value"])
        if known is None:
            raise ExpressionError(f"there is no function {clip(node['value'])}(); JMESPath has {_function_names()}")
        wanted, given = len(known["signature"]), len(node["children"])
        variadic = bool(wanted and known["signature"][-1].get("variadic"))
        if given < wanted or (given > wanted and not variadic):
            least = "at least " if variadic else ""
            raise ExpressionError(f"{node['value']}() takes {least}{wanted} arguments and was given {given}")


def _function_names() -> str:
    return ", ".join(sorted(_FUNCTIONS))


def _check_result(result: Any, budget: Budget) -> None:
    for leaf in budget.leaves(result):
        if isinstance(leaf, Missing):
            raise ExpressionError(str(leaf))
        if leaf is not None and not isinstance(leaf, int | float):
            raise ExpressionError("the result is a function's argument (&...), not a value")
