"""What a CEL expression can cost at worst, found in its syntax tree before anything is evaluated.

The evaluator goes through 10 000 elements at most, whatever is nested in what. What it does with each of them it does
not count. So that this has a bound, too:

- `all`, `exists`, `exists_one`, `map` and `filter` go through a field, or a list that is written out: so nothing grows
  from one to the next;
- what they read besides their own variable is paid for once for each element;
- the list that `map` or `filter` makes is paid for once for each element, too, for it is copied so often;
- `contains` looks for a text that is written out.
"""

from dataclasses import dataclass, field
from typing import Any

from services.pipeline.errors import ExpressionError, clip

MAX_ELEMENTS = 10_000
"""What the evaluator goes through at most."""

# What it takes to copy one element, in what it takes to look at a byte.
_COPY = 100
_RESULT = "@result"

# Fields of the messages that a tree consists of (cel.expr.CheckedExpr and Expr), by number.
_ANY_VALUE, _TREE = 2, 4
_CONSTANT, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = 3, 4, 5, 6, 7, 8, 9
_CALL_TARGET, _CALL_FUNCTION, _CALL_ARGUMENTS = 1, 2, 3
_VARIABLE, _RANGE, _INITIAL, _STEP = 1, 2, 4, 6
_ENTRY_PARTS = (3, 4)
_CONSTANT_TEXT = 6

_Message = dict[int, list[Any]]


@dataclass(frozen=True)
class Visits:
    """How often something is evaluated: so many times for each way through so many lists of the event."""

    times: int = 1
    lists: int = 0

    def of(self, elements: int) -> int:
        many: int = self.times * elements**self.lists
        return min(many, MAX_ELEMENTS)


@dataclass
class Shape:
    """What decides over the cost."""

    words: int = 0
    """Nodes of the tree: each looks at what there is once."""
    sums: int = 0
    """Each may make a value as large as both of its sides."""
    again: list[tuple[int, Visits]] = field(default_factory=list)
    """The words of each part that looks at large values more than once, and how often."""
    made: list[Visits] = field(default_factory=list)
    """The length of each list that is made."""

    def work(self, size: int, elements: int) -> int:
        """The bytes that are looked at, in an event of so many, with so many elements in all."""
        words = self.words + sum(words * visits.of(elements) for words, visits in self.again)
        copied = sum(visits.of(elements) ** 2 for visits in self.made)
        return words * (self.sums + 1) * size + copied * _COPY


def read_shape(serialized: bytes, inputs: tuple[str, ...] = ("event",)) -> Shape:
    """The shape of a compiled expression over `inputs`, which may be large. Raises ExpressionError without a bound."""
    checked = _fields(_fields(serialized)[_ANY_VALUE][0])
    shape = Shape()
    shape.words = _Walk(shape, inputs).walk(_Node(checked[_TREE][0]), [])
    return shape


@dataclass(frozen=True)
class _Macro:
    """A macro whose body one is in."""

    variable: str
    is_written_out: bool
    """Whether its list is."""
    starts: Visits
    """How often it goes through its list from the beginning."""
    visits: Visits


class _Node:
    """One node of the tree."""

    def __init__(self, serialized: bytes) -> None:
        self._fields = _fields(serialized)
        self.kind = next((kind for kind in self._fields if _CONSTANT <= kind <= _COMPREHENSION), _CONSTANT)
        self.parts = _fields(self._fields[self.kind][0]) if self.kind in self._fields else {}

    @property
    def name(self) -> str:
        """Of an identifier, or of the function that is called."""
        numbers = {_IDENT: 1, _CALL: _CALL_FUNCTION}
        return _text(self.parts, numbers[self.kind]) if self.kind in numbers else ""

    @property
    def variable(self) -> str:
        return _text(self.parts, _VARIABLE)

    @property
    def is_text(self) -> bool:
        return self.kind == _CONSTANT and _CONSTANT_TEXT in self.parts

    def child(self, number: int) -> "_Node":
        return _Node(self.parts[number][0])

    def children(self) -> "list[_Node]":
        """What is below it; of a macro, what it does with each element comes last."""
        if self.kind == _STRUCT:
            entries = (_fields(entry) for entry in self.parts.get(2, []))
            return [_Node(entry[part][0]) for entry in entries for part in _ENTRY_PARTS if part in entry]
        numbers = {
            _SELECT: (1,),
            _CALL: (_CALL_TARGET, _CALL_ARGUMENTS),
            _LIST: (1,),
            _COMPREHENSION: (_RANGE, _STEP),
        }.get(self.kind, ())
        return [_Node(child) for number in numbers for child in self.parts.get(number, [])]

    def free(self) -> set[str]:
        """The names that stand for something outside of it."""
        if self.kind == _COMPREHENSION:
            around, step = self.children()
            return around.free() | (step.free() - {self.variable})
        return {self.name} if self.kind == _IDENT else {name for child in self.children() for name in child.free()}

    def root(self) -> str | None:
        """The name that a path begins with; None for what is no path."""
        match self.kind:
            case k if k == _IDENT:
                return self.name
            case k if k == _SELECT:
                return self.child(1).root()
            case k if k == _CALL and self.name in ("_[_]", "dyn"):
                base, *keys = self.children()
                return base.root() if all(key.kind == _CONSTANT for key in keys) else None
        return None

    def literals(self) -> int | None:
        """The length of a list that is written out; None for everything else."""
        items = self.children() if self.kind == _LIST else None
        return len(items) if items is not None and all(item.kind == _CONSTANT for item in items) else None


class _Walk:
    """Collects a shape."""

    def __init__(self, shape: Shape, inputs: tuple[str, ...]) -> None:
        self._shape = shape
        self._inputs = inputs

    def walk(self, node: _Node, around: list[_Macro]) -> int:
        """Looks at a node within macros, the innermost last; answers how many words it has."""
        if node.kind == _COMPREHENSION:
            return self._macro(node, around)
        if node.kind == _CALL:
            self._call(node, around)
        return 1 + sum(self.walk(child, around) for child in node.children())

    def _call(self, node: _Node, around: list[_Macro]) -> None:
        if node.name == "contains":
            _require_written_out(node, around)
        if node.name == "_+_" and _RESULT not in {child.name for child in node.children()}:
            self._shape.sums += 1

    def _macro(self, node: _Node, around: list[_Macro]) -> int:
        items, step = node.children()
        literals = items.literals()
        starts, visits = _visits(items, literals, around, self._inputs[0])
        macro = _Macro(node.variable, literals is not None, starts, visits)
        words = self.walk(step, [*around, macro])
        if step.free() - {node.variable} & {*self._inputs, *(outer.variable for outer in around)}:
            self._shape.again.append((words, visits))
        if node.child(_INITIAL).kind == _LIST:
            self._shape.made.append(visits)
        return words + self.walk(items, around)


def _visits(items: _Node, literals: int | None, around: list[_Macro], example: str) -> tuple[Visits, Visits]:
    """How often a macro goes through its list, and through how many elements in all."""
    here = around[-1].visits if around else Visits()
    if literals is not None:
        return here, Visits(here.times * literals, here.lists)
    root = items.root()
    if root is None:
        raise ExpressionError(
            f"all, exists, exists_one, map and filter go through a field, such as {example}.items, "
            "or a list of constants"
        )
    # The parts of what the macro around goes through are, all together, no more than that.
    starts = around[-1].starts if around and root == around[-1].variable else here
    return starts, Visits(starts.times, starts.lists + 1)


def _require_written_out(call: _Node, around: list[_Macro]) -> None:
    sought = call.children()[-1]
    written = {macro.variable for macro in around if macro.is_written_out}
    if not sought.is_text and not (sought.kind == _IDENT and sought.name in written):
        raise ExpressionError("contains() looks for a text in quotes, and for nothing else")


def _text(message: _Message, number: int) -> str:
    return bytes(message[number][0]).decode()


def _fields(message: bytes) -> _Message:
    """A protobuf message without its schema: the values of its fields, by number."""
    found: _Message = {}
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        match key & 7:
            case 0:
                value, position = _varint(message, position)
            case 2:
                length, position = _varint(message, position)
                value, position = message[position : position + length], position + length
            case 1 | 5 as kind:
                length = 8 if kind == 1 else 4
                value, position = message[position : position + length], position + length
            case kind:
                raise AssertionError(f"wire type {kind} in {clip(repr(message))}")
        found.setdefault(key >> 3, []).append(value)
    return found


def _varint(message: bytes, position: int) -> tuple[Any, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
