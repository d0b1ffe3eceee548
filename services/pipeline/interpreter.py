"""JMESPath as pipelines mean it: nothing is silently null, strings can be sliced, and work is bounded.

Where this differs from jmespath: an absent key or index gives a `Missing`, which counts as null everywhere inside
the expression and is told from a stored null only at its end; `text[0:5]` cuts strings (JEP-015).
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from jmespath import functions, visitor
from jmespath.exceptions import JMESPathTypeError

from services.pipeline.budget import Budget
from services.pipeline.errors import ExpressionError
from services.pipeline.missing import Missing

Node = dict[str, Any]
"""A node of jmespath's syntax tree: `type`, `children`, often `value`."""

_FUNCTIONS = functions.Functions()
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Interpreter(visitor.TreeInterpreter):
    """Evaluates one syntax tree. Not to be shared: it counts."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget
        self._inside_projection = 0
        # Whether something built here holds a Missing; what comes from the context never does.
        self._holes = False

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._budget.spend(1)
        return super().visit(node, *args, **kwargs)

    def visit_field(self, node: Any, value: Any) -> Any:
        if isinstance(value, Missing):
            return value
        if isinstance(value, dict) and node["value"] in value:
            return value[node["value"]]
        return Missing(spell(node), value)

    def visit_index(self, node: Any, value: Any) -> Any:
        if isinstance(value, Missing):
            return value
        if isinstance(value, list) and -len(value) <= node["value"] < len(value):
            return value[node["value"]]
        return Missing(spell(node), value)

    def visit_slice(self, node: Any, value: Any) -> Any:
        if isinstance(value, Missing):
            return value
        if not isinstance(value, list | str):
            return Missing(spell(node), value)
        if node["children"][2] == 0:
            raise ExpressionError("the step of a slice must not be 0")
        if isinstance(value, str):
            self._budget.spend_text(len(value))
        else:
            self._budget.spend(len(value))
        return value[slice(*node["children"])]

    def visit_subexpression(self, node: Any, value: Any) -> Any:
        return self._walk(node["children"], value)

    def visit_index_expression(self, node: Any, value: Any) -> Any:
        return self._walk(node["children"], value)

    def _walk(self, parts: Sequence[Node], value: Any) -> Any:
        for position, part in enumerate(parts):
            value = self.visit(part, value)
            if isinstance(value, Missing):
                value.put_under(join_path(parts[:position]))
                return value
        return value

    def visit_projection(self, node: Any, value: Any) -> Any:
        base, each = node["children"]
        found = self.visit(base, value)
        if isinstance(found, str) and _ends_in_slice(base):
            return self._walk([base, each], value)
        if not isinstance(found, list):
            return _not_a(found, "[*]", base)
        return self._project(each, found)

    def visit_filter_projection(self, node: Any, value: Any) -> Any:
        base, each, condition = node["children"]
        found = self.visit(base, value)
        if not isinstance(found, list):
            return _not_a(found, "[?]", base)
        return self._project(each, found, lambda item: not self._is_false(self.visit(condition, item)))

    def visit_value_projection(self, node: Any, value: Any) -> Any:
        base, each = node["children"]
        found = self.visit(base, value)
        if not isinstance(found, dict):
            return _not_a(found, "*", base)
        return self._project(each, list(found.values()))

    def _project(self, each: Node, items: list[Any], keep: Callable[[Any], bool] = lambda item: True) -> list[Any]:
        self._inside_projection += 1
        try:
            results = [self.visit(each, item) for item in items if keep(item)]
        finally:
            self._inside_projection -= 1
        return [result for result in results if result is not None and not isinstance(result, Missing)]

    def visit_flatten(self, node: Any, value: Any) -> Any:
        found = self.visit(node["children"][0], value)
        if not isinstance(found, list):
            return _not_a(found, "[]", node["children"][0])
        self._budget.spend(sum(len(item) if isinstance(item, list) else 1 for item in found))
        return [part for item in found for part in (item if isinstance(item, list) else [item])]

    def visit_multi_select_dict(self, node: Any, value: Any) -> Any:
        if value is None or isinstance(value, Missing):
            return value
        return {child["value"]: self._member(child, value) for child in node["children"]}

    def visit_multi_select_list(self, node: Any, value: Any) -> Any:
        if value is None or isinstance(value, Missing):
            return value
        return [self._member(child, value) for child in node["children"]]

    def _member(self, node: Node, value: Any) -> Any:
        """Among the elements of a list some may lack a field, which reads as null; a lone object must have it."""
        member = self.visit(node, value)
        if isinstance(member, Missing) and not self._inside_projection:
            self._holes = True
            return member
        return self.settle(member)

    def visit_comparator(self, node: Any, value: Any) -> Any:
        left, right = (self.settle(self.visit(child, value)) for child in node["children"])
        self._budget.measure([left, right])
        try:
            return super().visit_comparator(_with_children(node, left, right), None)
        except TypeError:  # text against a number, which JMESPath calls null
            return None

    def visit_expref(self, node: Any, value: Any) -> Any:
        return _Expression(node["children"][0], self)

    def visit_function_expression(self, node: Any, value: Any) -> Any:
        given = [self.visit(child, value) for child in node["children"]]
        arguments = [self.settle(argument) for argument in given]
        self._pay_for_call(node["value"], arguments)
        try:
            return _FUNCTIONS.call_function(node["value"], arguments)
        except JMESPathTypeError as error:
            absent = next((argument for argument in given if isinstance(argument, Missing)), None)
            raise ExpressionError(str(absent) if absent is not None else _wrong_type(error)) from None

    def _pay_for_call(self, name: str, arguments: list[Any]) -> None:
        self._budget.measure(arguments)
        match name, arguments:
            case "join", [str(glue), list(parts)]:
                self._budget.spend_text(len(glue) * len(parts))

    def settle(self, value: Any) -> Any:
        """The value with null wherever something is missing."""
        if isinstance(value, Missing):
            return None
        if not self._holes or not isinstance(value, list | dict):
            return value
        self._budget.spend(len(value) + 1)
        if isinstance(value, list):
            return [self.settle(item) for item in value]
        return {key: self.settle(item) for key, item in value.items()}

    def _is_false(self, value: Any) -> bool:
        return isinstance(value, Missing) or bool(super()._is_false(value))  # type: ignore[misc]


class _Expression(visitor._Expression):
    """`&name` as functions take it. The class name is part of jmespath's type check."""

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        return self.interpreter.settle(super().visit(node, *args, **kwargs))  # type: ignore[attr-defined]


def join_path(parts: Sequence[Node]) -> str:
    """The parts of a path as they are written: `steps.clock[0].time`."""
    text = ""
    for part in parts:
        spelled = spell(part)
        text += spelled if spelled.startswith("[") or not text else f".{spelled}"
    return text


def spell(node: Node) -> str:
    """A node as it is written; what is no path is only hinted at."""
    match node["type"]:
        case "field":
            name = node["value"]
            return name if _IDENTIFIER.fullmatch(name) else f'"{name}"'
        case "index":
            return f"[{node['value']}]"
        case "slice":
            return "[" + ":".join("" if part is None else str(part) for part in node["children"][:2]) + "]"
        case "subexpression" | "index_expression":
            return join_path(node["children"])
        case "projection" | "filter_projection" | "flatten":
            return spell(node["children"][0]) + "[]"
        case "function_expression":
            return f"{node['value']}(...)"
        case "current" | "identity":
            return "@"
    return "(...)"


def _not_a(found: Any, spelling: str, base: Node) -> Any:
    if isinstance(found, Missing):
        return found
    missing = Missing(spelling, found)
    missing.put_under(spell(base))
    return missing


def _ends_in_slice(node: Node) -> bool:
    return bool(node["type"] == "index_expression" and node["children"][-1]["type"] == "slice")


def _with_children(node: Node, *values: Any) -> Any:
    """The node over values that are known already."""
    return {**node, "children": [{"type": "literal", "value": value, "children": []} for value in values]}


def _wrong_type(error: JMESPathTypeError) -> str:
    expected = " or ".join(error.expected_types)
    return f"{error.function_name}() takes {expected} and was given {error.actual_type}"
