"""A template as somebody writes it: YAML, of which JSON is a part."""

from typing import Any

import yaml

from services.chassis.errors import InvalidArgument, Violation

_FIELD = "source"


class _Loader(yaml.SafeLoader):
    """Without aliases, of which a few lines could stand for more than there is memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not taken: write it out", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def read_source(text: str) -> Any:
    """What is written there. Raises InvalidArgument, which says in which line it cannot be read."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  it is a safe one
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise _refused(f"{line}{error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _refused(str(error).partition("\n")[0] or "is no YAML") from None


def within_source(refused: InvalidArgument) -> InvalidArgument:
    """The faults of a template as those of the text that it was read from."""
    return InvalidArgument.of(Violation(f"{_FIELD}.{fault.field}", fault.description) for fault in refused.violations)


def _refused(why: str) -> InvalidArgument:
    return InvalidArgument.of([Violation(_FIELD, f"cannot be read as YAML or JSON: {why}")])
