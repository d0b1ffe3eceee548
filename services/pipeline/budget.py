"""What one evaluation may cost, so that a few characters cannot stand for hours of work or all of the memory."""

import math
from collections.abc import Iterator
from typing import Any

from services.pipeline.errors import ExpressionError

DEFAULT_BUDGET = 256 * 1024
"""Units for one step's input: at worst about half a second of work, and far above what an honest pipeline needs."""
# Text is copied in blocks and so is cheaper to handle than as many elements.
_CHARACTERS_PER_UNIT = 16


class Budget:
    """Counts down what is looked at: a unit per node visited, per element, and per 16 characters."""

    def __init__(self, units: int = DEFAULT_BUDGET) -> None:
        self._left = units

    def spend(self, units: int) -> None:
        """Raises ExpressionError once nothing is left."""
        self._left -= units
        if self._left < 0:
            raise ExpressionError("the result, or the work to find it, is too large")

    def spend_text(self, characters: int) -> None:
        self.spend(characters // _CHARACTERS_PER_UNIT + 1)

    def measure(self, value: Any) -> None:
        """Spends what a deep look at `value` costs. The same value in two places costs twice, as it does as JSON."""
        for _ in self.leaves(value):
            pass

    def leaves(self, value: Any) -> Iterator[Any]:
        """Everything in `value` that holds nothing else, text excepted, at its cost.

        Raises ExpressionError also for numbers that are not finite, which JSON does not have.
        """
        pending = [value]
        while pending:
            item = pending.pop()
            if isinstance(item, str):
                self.spend_text(len(item))
            elif isinstance(item, list):
                self.spend(len(item) + 1)
                pending.extend(item)
            elif isinstance(item, dict):
                self.spend(2 * len(item) + 1)
                self.spend_text(sum(map(len, item)))
                pending.extend(item.values())
            elif isinstance(item, float) and not math.isfinite(item):
                raise ExpressionError("the result is not a finite number")
            else:
                yield item
