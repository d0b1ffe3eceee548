"""One run from lease to outcome."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from baton.tasks.v1 import run_pb2, work_service_pb2
from baton.tasks.v1.work_service_pb2 import RunReport
from baton.tasks.v1.work_service_pb2_grpc import WorkServiceStub
from opentelemetry.trace import Span

from services.chassis import structs
from services.chassis.clock import Clock, instant_text
from services.chassis.errors import ServiceError
from services.chassis.timestamps import from_timestamp
from services.pipeline.definition import Pipeline, Step
from services.pipeline.errors import PipelineError
from services.pipeline.options import OnError
from services.worker import failures, measures, payloads, spans
from services.worker.approvals import Approvals, NeedsApproval
from services.worker.failures import InternalFault, StepFailed
from services.worker.files import Files
from services.worker.foreach import Surroundings, run_items
from services.worker.held import HeldRun
from services.worker.outputs import Outputs
from services.worker.reporting import LeaseLost, Reporter
from services.worker.retrying import error_output, is_settled
from services.worker.steps import StepResult, StepRunner, ToolsOf
from services.worker.tools.use import User

_log = logging.getLogger(__name__)


class Executor:
    """Does leased runs, any number at a time."""

    def __init__(self, work: WorkServiceStub, tools: ToolsOf, reporter: Reporter, files: Files, clock: Clock) -> None:
        self._work = work
        self._tools = tools
        self._reporter = reporter
        self._files = files
        self._clock = clock

    async def execute(self, leased: work_service_pb2.LeasedRun, held: HeldRun) -> None:
        """Does the run and reports it. Returns when it ended, was given back, or is no longer ours."""
        approvals = Approvals(leased, self._work)
        tools = self._tools.of(User(leased.created_by, leased.lease.run_id))
        runner = StepRunner(leased.lease.run_id, leased.lease.attempt, tools, approvals, self._clock)
        with spans.run_span(leased) as span:
            try:
                execution = _Execution(leased, held, runner, approvals, self._reporter, self._files, self._clock, span)
                await execution.run()
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
            await self._reporter.send(RunReport(lease=leased.lease, released=released))
        except (LeaseLost, ServiceError):
            _log.warning("run_not_given_back", extra={"run_id": held.lease.run_id, "attempt": held.lease.attempt})


class _Execution:
    """The state of one run in progress."""

    def __init__(
        self,
        leased: work_service_pb2.LeasedRun,
        held: HeldRun,
        runner: StepRunner,
        approvals: Approvals,
        reporter: Reporter,
        files: Files,
        clock: Clock,
        span: Span,
    ) -> None:
        self._leased = leased
        self._held = held
        self._runner = runner
        self._reporter = reporter
        self._clock = clock
        self._span = span
        self._files = files
        self._outputs = Outputs(files)
        self._recorded = {record.id: record for record in leased.steps}
        self._surroundings = Surroundings(
            runner, self._outputs, approvals, self._items_recorded, self._report_item, lambda: held.cancel_requested
        )
        self._unreported: list[run_pb2.RunStep] = []

    async def run(self) -> None:
        begun = time.monotonic()
        try:
            outcome = await self._work()
        except asyncio.CancelledError:
            if self._held.lost:
                return
            _go_on_after_cancellation()
            outcome = RunReport(released=work_service_pb2.RunReleased())
        except ServiceError:
            outcome = await self._unrecordable()
        self._held.end()
        lasted = self._clock.now() - from_timestamp(self._leased.started_at)
        ended = outcome.WhichOneof("outcome") or ""
        measures.count_execution(ended, time.monotonic() - begun, lasted.total_seconds())
        await self._end(outcome)

    async def _work(self) -> RunReport:
        """Does the steps that are left; answers the outcome."""
        try:
            return await self._do_steps(payloads.read(self._leased.payload))
        except NeedsApproval as asked:
            return await asked.outcome(self._files)
        except PipelineError as error:
            return await self._failed(failures.from_pipeline(error))
        except StepFailed as failure:
            return await self._failed(failure)
        except (LeaseLost, ServiceError):
            raise
        except Exception:
            _log.exception("run_crashed", extra={"run_id": self._leased.lease.run_id})
            return await self._failed(InternalFault("the worker failed to do this run"))

    async def _do_steps(self, pipeline: Pipeline) -> RunReport:
        """The last step's record is left to travel with the outcome."""
        left = [placed async for placed in self._steps_left(pipeline)]
        context = self._run_context(pipeline) if left else {}
        for number, (position, step) in enumerate(left, start=1):
            if self._held.cancel_requested:
                return await self._canceled()
            result = await self._do(position, step, {**context, "steps": self._outputs.saved()})
            outcome = await self._outcome_of(step, result)
            if outcome is not None:
                return outcome
            if number < len(left) and not self._held.cancel_requested:
                await self._report(RunReport())
        return await self._succeeded()

    async def _steps_left(self, pipeline: Pipeline) -> AsyncIterator[tuple[int, Step]]:
        """The steps that no earlier attempt settled; what those saved is saved again."""
        for position, step in enumerate(pipeline.steps):
            record = self._recorded.get(step.id)
            if record is None or not is_settled(step, record):
                yield position, step
            elif step.save_as and record.status != run_pb2.STEP_STATUS_SKIPPED:
                await self._recall(record, step.save_as)

    async def _recall(self, record: run_pb2.RunStep, name: str) -> None:
        if record.status == run_pb2.STEP_STATUS_SUCCEEDED or record.HasField("output") or record.output_uri:
            await self._outputs.recall(record, name)
        else:
            self._outputs.remember(error_output(record.error), name)

    async def _do(self, position: int, step: Step, context: dict[str, Any]) -> StepResult:
        foreach, surroundings = step.foreach, self._surroundings
        if foreach is not None:
            return await self._runner.run(
                position, step, context, each=lambda record: run_items(record, step, foreach, context, surroundings)
            )
        earlier = self._recorded.get(step.id)
        return await self._runner.run(position, step, context, tries=(earlier.tries if earlier else 0) + 1)

    async def _outcome_of(self, step: Step, result: StepResult) -> RunReport | None:
        """Takes note of what a step did; answers the run's outcome when the run does not go on."""
        if result.canceled:
            return await self._canceled()
        goes_on = result.wait is None and step.on_error is OnError.CONTINUE
        if result.failure is None or goes_on:
            await self._keep(step, result)
            return None
        if result.wait is None:
            self._unreported.append(result.record)
            return await self._failed(result.failure, step.id, final=step.retry is not None)
        if step.foreach is None:  # what became of items is in their own records
            self._unreported.append(result.record)
        return _deferred(result.record.error, result.wait)

    async def _keep(self, step: Step, result: StepResult) -> None:
        record, name = result.record, step.save_as
        try:
            if record.status == run_pb2.STEP_STATUS_SKIPPED:
                return
            if name and (result.succeeded or result.output is not None):
                await self._outputs.save(record, result.output, name)
            elif name:
                self._outputs.remember(error_output(record.error), name)
            elif result.succeeded and step.foreach is None:
                await self._outputs.record(record, result.output)
        finally:
            self._unreported.append(record)

    async def _items_recorded(self, position: int, with_output: bool) -> list[run_pb2.RunStep]:
        request = work_service_pb2.ListItemsRequest(lease=self._held.lease, position=position, with_output=with_output)
        items: list[run_pb2.RunStep] = []
        while True:
            page = await self._reporter.list_items(request)
            items += page.items
            if not page.has_more:
                return items
            request.after = page.items[-1].item

    async def _report_item(self, record: run_pb2.RunStep) -> None:
        report = RunReport(lease=self._held.lease, steps=[record])
        receipt = await self._reporter.send(report)
        self._held.cancel_requested |= receipt.cancel_requested

    def _run_context(self, pipeline: Pipeline) -> dict[str, Any]:
        lease = self._leased.lease
        return {
            "now": instant_text(from_timestamp(self._leased.started_at)),
            "params": dict(pipeline.params),
            "event": structs.from_struct(self._leased.event),
            "run": {
                "id": lease.run_id,
                "attempt": lease.attempt,
                "created_at": instant_text(from_timestamp(self._leased.created_at)),
                "event_id": self._leased.event_id or None,
                "topic": self._leased.event_topic or None,
            },
            "task": {"id": self._leased.task_id, "title": self._leased.task},
        }

    async def _succeeded(self) -> RunReport:
        return await self._with_output(RunReport(succeeded=work_service_pb2.RunSucceeded()))

    async def _canceled(self) -> RunReport:
        return await self._with_output(RunReport(canceled=work_service_pb2.RunCanceled()))

    async def _failed(self, failure: StepFailed, step_id: str = "", *, final: bool = False) -> RunReport:
        failed = work_service_pb2.RunFailed(error=failures.run_error(failure, step_id), final=final)
        if failure.retry_after is not None:
            failed.retry_after.FromMilliseconds(math.ceil(failure.retry_after * 1000))
        return await self._with_output(RunReport(failed=failed))

    async def _with_output(self, report: RunReport) -> RunReport:
        """What the run saved, added to its outcome."""
        output, report.outputs_uri = await self._outputs.of_run()
        if output is not None:
            getattr(report, report.WhichOneof("outcome") or "").output.CopyFrom(output)
        return report

    async def _end(self, outcome: RunReport) -> None:
        if self._span.is_recording():
            self._span.set_attribute(spans.RUN_OUTCOME, outcome.WhichOneof("outcome") or "")
        if outcome.HasField("failed"):
            spans.mark_failed(self._span, failures.error_type(outcome.failed.error))
        try:
            await self._report(outcome)
        except ServiceError:
            await self._report(await self._unrecordable())

    async def _unrecordable(self) -> RunReport:
        """What was done cannot be recorded as it is; that it was not recorded still can."""
        self._unreported.clear()
        self._outputs.forget()
        return await self._failed(InternalFault("what this run did could not be recorded"))

    async def _report(self, report: RunReport) -> None:
        """Sends `report` with the steps that ended since the last one. Raises LeaseLost and ServiceError."""
        report.lease.CopyFrom(self._held.lease)
        report.steps.extend(self._unreported)
        receipt = await self._reporter.send(report)
        self._held.cancel_requested |= receipt.cancel_requested
        self._unreported.clear()


def _deferred(error: run_pb2.RunError, wait: timedelta) -> RunReport:
    deferred = work_service_pb2.RunDeferred(error=error)
    deferred.wait.FromTimedelta(wait)
    return RunReport(deferred=deferred)


def _go_on_after_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
