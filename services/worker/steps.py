"""One step of a run: its condition, its input, the call of its tool, and the record of all that."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from baton.tasks.v1 import run_pb2
from opentelemetry.trace import Span

from services.chassis import structs
from services.chassis.clock import Clock
from services.chassis.timestamps import to_timestamp
from services.pipeline import canonical, conditions, templates
from services.pipeline.definition import Step
from services.pipeline.errors import PipelineError
from services.worker import failures, spans
from services.worker.failures import InternalFault, StepFailed

_log = logging.getLogger(__name__)


class Tools(Protocol):
    """Calls tools by their address."""

    async def call(self, uses: str, arguments: dict[str, Any], *, timeout: float | None, key: str) -> Any:
        """The tool's answer as a JSON value, without secrets.

        `arguments` are as they were rendered, with secrets by reference. `timeout` is in seconds, None for the tool
        server's own. `key` is the call's idempotency key, the same on every attempt. Raises StepFailed, and
        TemplateError for a secret that the tool cannot have.
        """


@dataclass(frozen=True)
class StepResult:
    """What a step did."""

    record: run_pb2.RunStep
    output: Any = None
    failure: StepFailed | None = None
    """Why it failed, if it did."""

    @property
    def succeeded(self) -> bool:
        return self.record.status == run_pb2.STEP_STATUS_SUCCEEDED


class StepRunner:
    """Does the steps of one run, one at a time."""

    def __init__(self, run_id: str, attempt: int, tools: Tools, clock: Clock) -> None:
        self._run_id = run_id
        self._attempt = attempt
        self._tools = tools
        self._clock = clock

    async def run(self, position: int, step: Step, context: Mapping[str, Any]) -> StepResult:
        """Does the step. Never raises for a failure of the step: that is in the result."""
        record = run_pb2.RunStep(position=position, id=step.id, uses=step.uses, attempt=self._attempt)
        with spans.step_span(step.id, step.uses) as span:
            record.span_id = spans.span_id(span)
            started_at, begun = self._clock.now(), time.perf_counter()
            result = await self._attempt_step(step, context, record)
            if result.failure is not None:
                _note_failure(record, span, result.failure)
            record.MergeFrom(_times(started_at, self._clock.now(), time.perf_counter() - begun))
            spans.note_step(span, record.status)
        return result

    async def _attempt_step(self, step: Step, context: Mapping[str, Any], record: run_pb2.RunStep) -> StepResult:
        try:
            if step.condition is not None and not conditions.holds(step.condition, context):
                record.status = run_pb2.STEP_STATUS_SKIPPED
                return StepResult(record)
            output = await self._call(step, context, record)
            record.output.CopyFrom(structs.to_value(output))
            record.status = run_pb2.STEP_STATUS_SUCCEEDED
            return StepResult(record, output)
        except PipelineError as error:
            return StepResult(record, failure=failures.from_pipeline(error))
        except StepFailed as failure:
            return StepResult(record, failure=failure)
        except Exception:
            _log.exception("step_crashed", extra={"run_id": self._run_id, "step_id": step.id})
            return StepResult(record, failure=InternalFault("the worker failed to do this step"))

    async def _call(self, step: Step, context: Mapping[str, Any], record: run_pb2.RunStep) -> Any:
        arguments = templates.render(dict(step.with_), context)
        # Of the input as it is shown: the digest of a secret's value would let others try what it is.
        record.input_digest = canonical.digest(arguments)
        key = f"{self._run_id}:{step.id}"
        return await self._tools.call(step.uses, arguments, timeout=step.timeout_seconds, key=key)


def _note_failure(record: run_pb2.RunStep, span: Span, failure: StepFailed) -> None:
    record.status = run_pb2.STEP_STATUS_FAILED
    record.error.CopyFrom(failures.run_error(failure, record.id))
    spans.mark_failed(span, failures.error_type(record.error))


def _times(started_at: datetime, finished_at: datetime, seconds: float) -> run_pb2.RunStep:
    return run_pb2.RunStep(
        started_at=to_timestamp(started_at),
        finished_at=to_timestamp(max(started_at, finished_at)),
        duration_ms=round(seconds * 1000),
    )
