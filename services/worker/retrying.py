"""Whether a step that failed is tried again by its own rule, and whether it is done with."""

from datetime import timedelta

from baton.tasks.v1 import run_pb2

from services.chassis.backoff import backoff
from services.pipeline.definition import Step
from services.pipeline.options import OnError
from services.worker import failures
from services.worker.failures import StepFailed

_DONE = (run_pb2.STEP_STATUS_SUCCEEDED, run_pb2.STEP_STATUS_SKIPPED)


def wait_before_retry(step: Step, failure: StepFailed, tries: int) -> timedelta | None:
    """How long to wait for the next try of a step that failed for the `tries`-th time; None: there is none."""
    if step.retry is None or tries > step.retry.max or failure.error_class not in failures.RETRYABLE:
        return None
    return backoff(step.retry.backoff, tries, timedelta(seconds=failure.retry_after or 0))


def is_settled(step: Step, record: run_pb2.RunStep) -> bool:
    """Whether nothing is left to be done of a step, or an item of it, that has this record.

    A failure settles it when the run goes on all the same, and no retry is left.
    """
    if record.status in _DONE:
        return True
    retries = step.retry.max if step.retry and record.error.retryable else 0
    return step.on_error is OnError.CONTINUE and record.tries > retries


def error_output(error: run_pb2.RunError) -> dict[str, dict[str, str]]:
    """What is saved of a step that failed while its run goes on."""
    return {"error": {"class": failures.error_type(error), "message": error.message}}
