"""What can be wrong with a pipeline. The messages are written for the people who wrote the pipeline."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One fault of a payload."""

    field: str
    """Where it is: `payload.pipeline[1].with.time`."""
    description: str
    """What is wrong and what would be right, lower case, without a full stop."""


class PipelineError(Exception):
    """A pipeline that cannot be read, or a step of one that cannot go on."""


class ExpressionError(PipelineError):
    """A JMESPath expression that cannot be read or evaluated."""


class TemplateError(PipelineError):
    """A `${...}` that cannot be read or rendered."""


class ConditionError(PipelineError):
    """An `if` that cannot be read or evaluated."""


class ValidationFault(PipelineError):
    """A payload that is not a pipeline; `problems` holds every fault found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{problem.field}: {problem.description}" for problem in self.problems[:5]))


def clip(text: str, limit: int = 80) -> str:
    """The text, cut so that a message stays readable whatever a caller sent."""
    return text if len(text) <= limit else f"{text[:limit]}..."
