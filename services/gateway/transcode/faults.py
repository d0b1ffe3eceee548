"""What is wrong with a value, and where in it."""

from collections.abc import Iterable

Fault = tuple[str, str]
"""A place relative to the value (`pipeline[0].uses`, empty for the value itself), and what is wrong there."""

_NAME_SHOWN = 100


class Faults(Exception):
    """Everything that is wrong with one value. Containers collect those of their parts and say where each was."""

    def __init__(self, found: list[Fault]) -> None:
        super().__init__(found)
        self.found = found

    @classmethod
    def of(cls, description: str) -> "Faults":
        """One fault of the value itself."""
        return cls([("", description)])

    def at(self, place: str) -> Iterable[Fault]:
        """The faults as they are called from one level above."""
        return [(join(place, inner), description) for inner, description in self.found]


def join(outer: str, inner: str) -> str:
    """`a` and `b` make `a.b`, `a` and `[0]` make `a[0]`. A caller's overlong name is cut: it will be echoed."""
    outer = outer if len(outer) <= _NAME_SHOWN else f"{outer[:_NAME_SHOWN]}..."
    if not inner or not outer:
        return outer or inner
    return f"{outer}{inner}" if inner.startswith("[") else f"{outer}.{inner}"
