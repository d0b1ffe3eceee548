"""One run from lease to outcome."""

import asyncio
import logging
import math
from collections.abc import Iterator
from typing import Any, Protocol

import orjson
from baton.tasks.v1 import run_pb2, work_service_pb2
from google.protobuf.struct_pb2 import Struct
from opentelemetry.trace import Span

from services.chassis import structs
from services.chassis.clock import Clock, instant_text
from services.chassis.errors import ServiceError
from services.chassis.timestamps import from_timestamp
from services.pipeline.definition import Pipeline, Step
from services.pipeline.errors import PipelineError
from services.worker import failures, payloads, spans
from services.worker.failures import InputNotValid, InternalFault, StepFailed
from services.worker.held import HeldRun
from services.worker.limits import MAX_OUTPUT_BYTES
from services.worker.reporting import LeaseLost, Reporter
from services.worker.steps import StepResult, StepRunner, Tools

_DONE = (run_pb2.STEP_STATUS_SUCCEEDED, run_pb2.STEP_STATUS_SKIPPED)
_log = logging.getLogger(__name__)


class ToolsOf(Protocol):
    """Knows who may use which tools."""

    def of(self, owner: str) -> Tools:
        """The tools as the agent `owner` may use them."""


class Executor:
    """Does leased runs, any number at a time."""

    def __init__(self, tools: ToolsOf, reporter: Reporter, clock: Clock) -> None:
        self._tools = tools
        self._reporter = reporter
        self._clock = clock

    async def execute(self, leased: work_service_pb2.LeasedRun, held: HeldRun) -> None:
        """Does the run and reports it. Returns when it ended, was given back, or is no longer ours."""
        tools = self._tools.of(leased.created_by)
        runner = StepRunner(leased.lease.run_id, leased.lease.attempt, tools, self._clock)
        with spans.run_span(leased) as span:
            try:
                await _Execution(leased, held, runner, self._reporter, self._clock, span).run()
            except LeaseLost:
                _log.warning("lease_lost", extra={"run_id": held.lease.run_id, "attempt": held.lease.attempt})
                spans.mark_failed(span, "lease_lost")
            except ServiceError as error:
                # Nobody will hear of this run's end: its lease runs out and it is rescued.
                _log.error("run_abandoned", extra={"run_id": held.lease.run_id, "reason": error.reason})
                spans.mark_failed(span, error.reason)
            except Exception:
                _log.exception("run_abandoned", extra={"run_id": held.lease.run_id})
                spans.mark_failed(span, "internal")

    async def give_back(self, leased: work_service_pb2.LeasedRun, held: HeldRun) -> None:
        """Gives back a run that came too late to be begun."""
        held.end()
        released = work_service_pb2.RunReleased()
        try:
            await self._reporter.send(work_service_pb2.RunReport(lease=leased.lease, released=released))
        except (LeaseLost, ServiceError):
            _log.warning("run_not_given_back", extra={"run_id": held.lease.run_id, "attempt": held.lease.attempt})


class _Execution:
    """The state of one run in progress."""

    def __init__(
        self,
        leased: work_service_pb2.LeasedRun,
        held: HeldRun,
        runner: StepRunner,
        reporter: Reporter,
        clock: Clock,
        span: Span,
    ) -> None:
        self._leased = leased
        self._held = held
        self._runner = runner
        self._reporter = reporter
        self._clock = clock
        self._span = span
        self._saved: dict[str, Any] = {}
        self._unreported: list[run_pb2.RunStep] = []

    async def run(self) -> None:
        try:
            outcome = await self._work()
        except asyncio.CancelledError:
            if self._held.lost:
                return
            _go_on_after_cancellation()
            outcome = work_service_pb2.RunReport(released=work_service_pb2.RunReleased())
        except ServiceError:
            outcome = self._unrecordable()
        self._held.end()
        await self._end(outcome)

    async def _work(self) -> work_service_pb2.RunReport:
        """Does the steps that are left; answers the outcome."""
        try:
            return await self._do_steps(payloads.read(self._leased.payload))
        except PipelineError as error:
            return self._failed(failures.from_pipeline(error))
        except StepFailed as failure:
            return self._failed(failure)
        except (LeaseLost, ServiceError):
            raise
        except Exception:
            _log.exception("run_crashed", extra={"run_id": self._leased.lease.run_id})
            return self._failed(InternalFault("the worker failed to do this run"))

    async def _do_steps(self, pipeline: Pipeline) -> work_service_pb2.RunReport:
        """The last step's record is left to travel with the outcome."""
        left = list(self._steps_left(pipeline))
        context = self._run_context(pipeline) if left else {}
        for number, (position, step) in enumerate(left, start=1):
            if self._held.cancel_requested:
                return self._canceled()
            # A copy: what a tool was given must not change under it when later steps save more.
            result = await self._runner.run(position, step, {**context, "steps": dict(self._saved)})
            self._note(step, result)
            if result.failure is not None:
                return self._failed(result.failure, step.id)
            if number < len(left) and not self._held.cancel_requested:
                await self._report(work_service_pb2.RunReport())
        return self._succeeded()

    def _steps_left(self, pipeline: Pipeline) -> Iterator[tuple[int, Step]]:
        """The steps that no earlier attempt finished; what those saved is saved again."""
        done = {record.id: record for record in self._leased.steps if record.status in _DONE}
        for position, step in enumerate(pipeline.steps):
            record = done.get(step.id)
            if record is None:
                yield position, step
            elif step.save_as and record.status == run_pb2.STEP_STATUS_SUCCEEDED:
                self._saved[step.save_as] = structs.from_value(record.output)

    def _note(self, step: Step, result: StepResult) -> None:
        self._unreported.append(result.record)
        if step.save_as and result.succeeded:
            self._saved[step.save_as] = result.output

    def _run_context(self, pipeline: Pipeline) -> dict[str, Any]:
        lease = self._leased.lease
        return {
            "now": instant_text(self._clock.now()),
            "params": dict(pipeline.params),
            "run": {
                "id": lease.run_id,
                "attempt": lease.attempt,
                "created_at": instant_text(from_timestamp(self._leased.created_at)),
            },
            "task": {"id": self._leased.task_id, "title": self._leased.task},
        }

    def _succeeded(self) -> work_service_pb2.RunReport:
        if not self._saved:
            return work_service_pb2.RunReport(succeeded=work_service_pb2.RunSucceeded())
        size = self._output_bytes()
        if size > MAX_OUTPUT_BYTES:
            raise InputNotValid(f"the saved outputs have {size} bytes in all, at most {MAX_OUTPUT_BYTES}")
        succeeded = work_service_pb2.RunSucceeded(output=structs.to_struct(self._saved))
        return work_service_pb2.RunReport(succeeded=succeeded)

    def _failed(self, failure: StepFailed, step_id: str = "") -> work_service_pb2.RunReport:
        failed = work_service_pb2.RunFailed(error=failures.run_error(failure, step_id), output=self._output_so_far())
        if failure.retry_after is not None:
            failed.retry_after.FromMilliseconds(math.ceil(failure.retry_after * 1000))
        return work_service_pb2.RunReport(failed=failed)

    def _canceled(self) -> work_service_pb2.RunReport:
        return work_service_pb2.RunReport(canceled=work_service_pb2.RunCanceled(output=self._output_so_far()))

    def _output_so_far(self) -> Struct | None:
        """What is saved, unless it is more than may be kept."""
        return structs.to_struct(self._saved) if self._output_bytes() <= MAX_OUTPUT_BYTES else None

    def _output_bytes(self) -> int:
        # Every output was checked when its tool answered, so this is JSON.
        return len(orjson.dumps(self._saved))

    async def _end(self, outcome: work_service_pb2.RunReport) -> None:
        if self._span.is_recording():
            self._span.set_attribute(spans.RUN_OUTCOME, outcome.WhichOneof("outcome") or "")
        if outcome.HasField("failed"):
            spans.mark_failed(self._span, failures.error_type(outcome.failed.error))
        try:
            await self._report(outcome)
        except ServiceError:
            await self._report(self._unrecordable())

    def _unrecordable(self) -> work_service_pb2.RunReport:
        """What was done cannot be recorded as it is; that it was not recorded still can."""
        self._unreported.clear()
        self._saved.clear()
        return self._failed(InternalFault("what this run did could not be recorded"))

    async def _report(self, report: work_service_pb2.RunReport) -> None:
        """Sends `report` with the steps that ended since the last one. Raises LeaseLost and ServiceError."""
        report.lease.CopyFrom(self._held.lease)
        report.steps.extend(self._unreported)
        receipt = await self._reporter.send(report)
        self._held.cancel_requested |= receipt.cancel_requested
        self._unreported.clear()


def _go_on_after_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
