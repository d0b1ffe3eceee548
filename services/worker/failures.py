"""How a step fails. The class decides whether it may be tried again, never the words of the message."""

from typing import ClassVar

from baton.tasks.v1 import run_pb2

from services.pipeline.errors import ConditionError, PipelineError, TemplateError

MAX_MESSAGE = 2000
_ErrorClass = run_pb2.ErrorClass
RETRYABLE = frozenset(
    {_ErrorClass.ERROR_CLASS_TOOL, _ErrorClass.ERROR_CLASS_TOOL_TIMEOUT, _ErrorClass.ERROR_CLASS_INTERNAL}
)


class StepFailed(Exception):
    """A step that cannot be done. The message is for people and is kept with the run.

    `retry_after` is how many seconds the tool asked to be left alone, None when it did not say.
    """

    error_class: ClassVar[run_pb2.ErrorClass.ValueType]

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InputNotValid(StepFailed):
    """The pipeline, or the tool's input, is not valid."""

    error_class = _ErrorClass.ERROR_CLASS_VALIDATION


class RequestRejected(StepFailed):
    """The server that was asked will not do this, now or later: it was not asked rightly."""

    error_class = _ErrorClass.ERROR_CLASS_VALIDATION


class TemplateNotRendered(StepFailed):
    """A template could not be rendered."""

    error_class = _ErrorClass.ERROR_CLASS_TEMPLATE


class ConditionNotEvaluated(StepFailed):
    """An `if` could not be evaluated."""

    error_class = _ErrorClass.ERROR_CLASS_CONDITION


class ToolFailed(StepFailed):
    """The tool answered with an error, or could not be reached."""

    error_class = _ErrorClass.ERROR_CLASS_TOOL


class ToolTimedOut(StepFailed):
    """The tool did not answer in time."""

    error_class = _ErrorClass.ERROR_CLASS_TOOL_TIMEOUT


class ApprovalRejected(StepFailed):
    """Somebody said no, or nobody said yes in time."""

    error_class = _ErrorClass.ERROR_CLASS_APPROVAL_REJECTED


class InternalFault(StepFailed):
    """A fault of Baton's own; what it was stands in the worker's log."""

    error_class = _ErrorClass.ERROR_CLASS_INTERNAL


def from_pipeline(error: PipelineError) -> StepFailed:
    """The failure of a step, or a run, whose pipeline has this error."""
    match error:
        case TemplateError():
            return TemplateNotRendered(str(error))
        case ConditionError():
            return ConditionNotEvaluated(str(error))
    return InputNotValid(str(error))


def from_error(error: run_pb2.RunError, message: str, retry_after: float | None = None) -> StepFailed:
    """A failure of the same class as one that is recorded."""
    return _OF_CLASS[getattr(error, "class")](message, retry_after=retry_after)


def run_error(failure: StepFailed, step_id: str = "") -> run_pb2.RunError:
    """The failure as it is reported."""
    error = run_pb2.RunError(
        message=str(failure)[:MAX_MESSAGE], retryable=failure.error_class in RETRYABLE, step_id=step_id
    )
    setattr(error, "class", failure.error_class)  # a keyword of Python
    return error


def error_type(error: run_pb2.RunError) -> str:
    """The class of an error in lower case: `tool_timeout`."""
    return run_pb2.ErrorClass.Name(getattr(error, "class")).removeprefix("ERROR_CLASS_").lower()


_OF_CLASS = {
    kind.error_class: kind
    for kind in (
        InputNotValid,
        TemplateNotRendered,
        ConditionNotEvaluated,
        ToolFailed,
        ToolTimedOut,
        ApprovalRejected,
        InternalFault,
    )
}
