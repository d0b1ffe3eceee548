"""What an expression reads, found from its text alone, so that a bad reference is refused before anything runs."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from services.pipeline.errors import clip
from services.pipeline.expressions import Expression
from services.pipeline.interpreter import Node

Path = tuple[str, ...]

ROOTS = ("now", "params", "event", "steps", "run", "task")
"""What expressions can read in this version."""
_FIELDS = {"run": ("attempt", "created_at", "event_id", "id", "topic"), "task": ("id", "title")}
_OF_EVENT = ("event_id", "topic")
PROBE_ROOTS = ("now", "params", "task")
"""What the probe of a condition can read."""
NO_EVENT = "only tasks with schedule_kind event or condition have an event"
_NO_TOPIC = "only tasks with schedule_kind event have one"
_CURRENT = ("current", "identity")
_SEQUENCES = ("subexpression", "index_expression", "pipe")
_OVER_ELEMENTS = ("projection", "value_projection", "filter_projection")


def paths_read(expression: Expression) -> list[Path]:
    """The paths of names that the expression reads off its context: `(steps,)`, `(steps, clock)`, ..."""
    reads: list[Path] = []
    _follow(expression.tree, (), reads)
    return reads


def _follow(node: Node, at: Path | None, reads: list[Path]) -> Path | None:
    """Notes what `node` reads, evaluated at the path `at`; answers the path of its result, None when unknown."""
    kind, children = node["type"], node["children"]
    if kind == "field":
        if at is None:
            return None
        reads.append((*at, node["value"]))
        return reads[-1]
    if kind in _CURRENT:
        return at
    if kind == "slice":
        return None
    if kind in _SEQUENCES:
        for child in children:
            at = _follow(child, at, reads)
        return at
    if kind in _OVER_ELEMENTS:
        _follow(children[0], at, reads)
        children, at = children[1:], None
    if kind == "expref":
        at = None
    for child in children:
        _follow(child, at, reads)
    return None


@dataclass
class Scope:
    """What a step may refer to: the parameters, and what earlier steps saved."""

    params: Collection[str]
    saved: set[str] = field(default_factory=set)
    saved_later: Collection[str] = ()
    has_event: bool = True
    """Whether an event, or the result of a probe in its place, makes the runs."""
    has_topic: bool = True
    """Whether that event was published, and so has an id and a topic."""
    roots: Collection[str] = ROOTS
    """What there is at all."""
    item: str | None = None
    """What the step calls the item at hand; None where there is none."""

    def faults(self, expression: Expression) -> Iterator[str]:
        """What is wrong with the references of `expression`, each fault once."""
        found = (self._fault(path) for path in paths_read(expression))
        return iter(dict.fromkeys(fault for fault in found if fault))

    def _fault(self, path: Path) -> str | None:
        match path:
            case (root,) if root == self.item:
                return None
            case ("item",):
                return "item is there only in `with` of a step with foreach, under the name that its `as` says"
            case ("secrets",):
                return "no expression reads secrets: in the strings of a `with`, ${secrets.NAME} stands for one"
            case (root,) if root not in self.roots:
                return f"there is no {clip(root)!r}; expressions can read {', '.join(self.roots)}"
            case ("event",) if not self.has_event:
                return f"there is no event: {NO_EVENT}"
            case ("run", name) if name in _OF_EVENT and not (self.has_event and self.has_topic):
                return f"there is no run.{name}: {_NO_TOPIC}"
            case ("params", name) if name not in self.params:
                return f"params.{clip(name)} is not in payload.params, which {_has(self.params)}"
            case ("steps", name) if "steps" in self.roots and name not in self.saved:
                return self._unsaved(name)
            case (root, name) if root in _FIELDS and name not in _FIELDS[root]:
                return f"{root}.{clip(name)} does not exist; {root} has {', '.join(_FIELDS[root])}"
        return None

    def _unsaved(self, name: str) -> str:
        if name in self.saved_later:
            return f"steps.{clip(name)} is saved only by this or a later step"
        return f"steps.{clip(name)} is not saved by any earlier step; the steps before {_has(self.saved, 'saved')}"


def _has(names: Collection[str], verb: str = "has") -> str:
    shown = ", ".join(clip(name, 40) for name in sorted(names)[:12])
    return f"{verb} {shown or 'nothing'}{' and more' if len(names) > 12 else ''}"
