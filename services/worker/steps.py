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
from services.pipeline import canonical, conditions, templates
from services.pipeline.definition import Step
from services.pipeline.errors import PipelineError
from services.worker import failures, spans
from services.worker.failures import InternalFault, StepFailed

_log = logging.getLogger(__name__)


class Tools(Protocol):
    """Calls tools by their address."""

    async def call(self, uses: str, arguments: dict[str, Any], *, timeout: float | None, key: str) -> Any:
        """The tool's answer as a JSON value.

        `timeout` is in seconds, None for the tool server's own. `key` is the call's idempotency key, the same on
        every attempt. Raises StepFailed.
        """


@dataclass(frozen=True)
class StepResult:
    """What a step did."""

    record: run_pb2.RunStep
    output: Any = None

    @property
    def failed(self) -> bool:
        return self.record.status == run_pb2.StepStatus.STEP_STATUS_FAILED

    @property
    def succeeded(self) -> bool:
        return self.record.status == run_pb2.StepStatus.STEP_STATUS_SUCCEEDED


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
            output = await self._attempt_step(step, context, record, span)
            _note_times(record, started_at, self._clock.now(), time.perf_counter() - begun)
            span.set_attribute(spans.STEP_STATUS, _status_name(record))
        return StepResult(record, output)

    async def _attempt_step(self, step: Step, context: Mapping[str, Any], record: run_pb2.RunStep, span: Span) -> Any:
        try:
            if step.condition is not None and not conditions.holds(step.condition, context):
                record.status = run_pb2.StepStatus.STEP_STATUS_SKIPPED
                return None
            output = await self._call(step, context, record)
            record.output.CopyFrom(structs.to_value(output))
            record.status = run_pb2.StepStatus.STEP_STATUS_SUCCEEDED
            return output
        except PipelineError as error:
            self._fail(record, span, failures.from_pipeline(error))
        except StepFailed as failure:
            self._fail(record, span, failure)
        except Exception:
            _log.exception("step_crashed", extra={"run_id": self._run_id, "step_id": step.id})
            self._fail(record, span, InternalFault("the worker failed to do this step"))
        return None

    async def _call(self, step: Step, context: Mapping[str, Any], record: run_pb2.RunStep) -> Any:
        arguments = templates.render(dict(step.with_), context)
        record.input_digest = canonical.digest(arguments)
        key = f"{self._run_id}:{step.id}"
        return await self._tools.call(step.uses, arguments, timeout=step.timeout_seconds, key=key)

    @staticmethod
    def _fail(record: run_pb2.RunStep, span: Span, failure: StepFailed) -> None:
        record.status = run_pb2.StepStatus.STEP_STATUS_FAILED
        record.error.CopyFrom(failures.run_error(failure, record.id))
        spans.mark_failed(span, failures.error_type(record.error))


def _status_name(record: run_pb2.RunStep) -> str:
    return run_pb2.StepStatus.Name(record.status).removeprefix("STEP_STATUS_").lower()


def _note_times(record: run_pb2.RunStep, started_at: datetime, finished_at: datetime, seconds: float) -> None:
    record.started_at.FromDatetime(started_at)
    record.finished_at.FromDatetime(max(started_at, finished_at))
    record.duration_ms = round(seconds * 1000)
