"""Conditions: the JMESPath expression of a step's `if`.

True is what JMESPath calls true: everything but false, null, "", [] and {}; 0 is true. What is missing is null, and
so is false.
"""

from collections.abc import Mapping
from typing import Any

from services.pipeline.budget import Budget
from services.pipeline.errors import ConditionError, ExpressionError
from services.pipeline.expressions import Expression, compile_expression
from services.pipeline.missing import Missing


def compile_condition(text: str) -> Expression:
    """Reads an `if`. Raises ConditionError."""
    if text.lstrip().startswith("${"):
        raise ConditionError("an `if` is one expression, written without ${ }")
    try:
        return compile_expression(text.strip())
    except ExpressionError as error:
        raise ConditionError(str(error)) from None


def holds(text: str, context: Mapping[str, Any], budget: Budget | None = None) -> bool:
    """Whether the condition is true in `context`. Raises ConditionError."""
    try:
        found = compile_condition(text).evaluate(context, budget or Budget())
    except ExpressionError as error:
        raise ConditionError(f"if: {error}") from None
    if isinstance(found, Missing) or found is None or found is False:
        return False
    return not isinstance(found, str | list | dict) or bool(found)
