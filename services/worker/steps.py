"""One step of a run: its input, the call of its tool, and the record of both."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from baton.tasks.v1 import run_pb2
from opentelemetry.trace import Span

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.chassis.timestamps import to_timestamp
from services.pipeline import canonical, conditions, templates
from services.pipeline.definition import Step
from services.pipeline.errors import PipelineError
from services.worker import failures, measures, spans
from services.worker.approvals import Approvals, NeedsApproval
from services.worker.failures import InternalFault, StepFailed
from services.worker.reporting import LeaseLost
from services.worker.retrying import wait_before_retry
from services.worker.tools.use import User

_log = logging.getLogger(__name__)


class Tools(Protocol):
    """Calls tools by their address."""

    async def call(self, uses: str, arguments: dict[str, Any], *, timeout: float | None, key: str) -> Any:
        """The tool's answer as a JSON value, without secrets.

        `arguments` are as they were rendered, with secrets by reference. `timeout` is in seconds, None for the tool
        server's own. `key` is the call's idempotency key, the same on every attempt. Raises StepFailed, and
        TemplateError for a secret that the tool cannot have.
        """


class ToolsOf(Protocol):
    """Knows who may use which tools."""

    def of(self, user: User) -> Tools:
        """The tools as `user` may use them."""


@dataclass
class StepResult:
    """What a step, or one item of it, did."""

    record: run_pb2.RunStep
    output: Any = None
    failure: StepFailed | None = None
    """Why it failed, if it did."""
    wait: timedelta | None = None
    """How long to wait until what failed is tried again; None when it is not, by the step's own rule."""
    canceled: bool = False
    """It stopped halfway because the run is to stop; there is nothing to record."""

    @property
    def succeeded(self) -> bool:
        return self.record.status == run_pb2.STEP_STATUS_SUCCEEDED


Each = Callable[[run_pb2.RunStep], Awaitable[StepResult]]
"""Does the items of a step, and notes in its record what became of them. Raises what steps may."""
_Work = Callable[[], Awaitable[StepResult]]


class StepRunner:
    """Does the steps of one run."""

    def __init__(self, run_id: str, attempt: int, tools: Tools, approvals: Approvals, clock: Clock) -> None:
        self._run_id = run_id
        self._approvals = approvals
        self._attempt = attempt
        self._tools = tools
        self._clock = clock

    async def run(
        self, position: int, step: Step, context: Mapping[str, Any], *, tries: int = 1, each: Each | None = None
    ) -> StepResult:
        """Does the step, for the `tries`-th time; `each` does the items of one that has some.

        Never raises for a failure of the step: that is in the result. Raises NeedsApproval when somebody has to be
        asked first, LeaseLost and ServiceError.
        """
        record = run_pb2.RunStep(position=position, id=step.id, uses=step.uses, attempt=self._attempt, tries=tries)

        async def work() -> StepResult:
            if step.condition is not None and not conditions.holds(step.condition, context):
                record.status = run_pb2.STEP_STATUS_SKIPPED
                return StepResult(record)
            return await (each(record) if each else self._call(step, context, record))

        return await self._watch(step, record, work)

    async def run_item(
        self, of_step: run_pb2.RunStep, step: Step, context: Mapping[str, Any], *, item: int, tries: int
    ) -> StepResult:
        """Does one item of a step, in whose `context` it is; otherwise like `run`."""
        record = run_pb2.RunStep(
            position=of_step.position, id=step.id, uses=step.uses, attempt=self._attempt, tries=tries, item=item
        )
        return await self._watch(step, record, lambda: self._call(step, context, record))

    async def _watch(self, step: Step, record: run_pb2.RunStep, work: _Work) -> StepResult:
        """Does `work` within a span; notes in the record how it went and how long it took."""
        with spans.step_span(record) as span:
            record.span_id = spans.span_id(span)
            started_at, begun = self._clock.now(), time.perf_counter()
            result = await self._settle(step, record, work)
            if result.failure is not None:
                if step.foreach is None or record.HasField("item"):  # of a step with items, these have decided
                    result.wait = wait_before_retry(step, result.failure, record.tries)
                _note_failure(record, span, result.failure)
            seconds = time.perf_counter() - begun
            record.MergeFrom(_times(started_at, self._clock.now(), seconds))
            if record.status != run_pb2.STEP_STATUS_SKIPPED:
                measures.count_step(seconds, succeeded=result.succeeded)
            spans.note_step(span, record.status)
        return result

    async def _settle(self, step: Step, record: run_pb2.RunStep, work: _Work) -> StepResult:
        try:
            return await work()
        except PipelineError as error:
            return StepResult(record, failure=failures.from_pipeline(error))
        except StepFailed as failure:
            return StepResult(record, failure=failure)
        except (LeaseLost, ServiceError, NeedsApproval):
            raise
        except Exception:
            _log.exception("step_crashed", extra={"run_id": self._run_id, "step_id": step.id})
            return StepResult(record, failure=InternalFault("the worker failed to do this step"))

    async def _call(self, step: Step, context: Mapping[str, Any], record: run_pb2.RunStep) -> StepResult:
        arguments = templates.render(dict(step.with_), context)
        # Of the input as it is shown: the digest of a secret's value would let others try what it is.
        record.input_digest = canonical.digest(arguments)
        key = f"{self._run_id}:{step.id}" + (f":{record.item}" if record.HasField("item") else "")
        if step.approval is not None and not record.HasField("item"):  # items are approved together
            await self._approvals.require(step, step.approval, arguments)
        output = await self._tools.call(step.uses, arguments, timeout=step.timeout_seconds, key=key)
        record.status = run_pb2.STEP_STATUS_SUCCEEDED
        return StepResult(record, output)


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
