"""A step that is done once for each of several items: their calls, side by side, and what is made of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
from baton.tasks.v1 import run_pb2

from services.pipeline import canonical, templates
from services.pipeline.budget import Budget
from services.pipeline.definition import Step
from services.pipeline.errors import clip
from services.pipeline.missing import describe
from services.pipeline.options import MAX_ITEMS, Foreach
from services.worker import failures
from services.worker.approvals import Approvals
from services.worker.failures import InputNotValid, StepFailed, TemplateNotRendered
from services.worker.limits import MAX_FILE_BYTES
from services.worker.outputs import Outputs
from services.worker.retrying import error_output, is_settled
from services.worker.steps import StepResult, StepRunner

Report = Callable[[run_pb2.RunStep], Awaitable[None]]
"""Records an item; returns once it is recorded."""


@dataclass(frozen=True)
class Surroundings:
    """What a step with items needs of its run."""

    runner: StepRunner
    outputs: Outputs
    approvals: Approvals
    recorded: Callable[[int, bool], Awaitable[list[run_pb2.RunStep]]]
    """The items that are recorded of the step at this position, with their outputs when these are wanted."""
    report: Report
    is_canceled: Callable[[], bool]


async def run_items(
    record: run_pb2.RunStep, step: Step, foreach: Foreach, context: Mapping[str, Any], run: Surroundings
) -> StepResult:
    """Does the step for each item that no earlier attempt settled; notes in its record what became of them.

    An item that fails for good keeps further ones from being begun, unless the step says `on_error: continue`. Raises
    StepFailed when there are no items to be had or their outputs are too large, PipelineError, and what reporting
    raises.
    """
    items = _items(foreach, context)
    record.input_digest = canonical.digest(items)
    if step.approval is not None:
        await run.approvals.require(step, step.approval, _all_arguments(step, foreach, items, context))
    attempt = _Attempt(record, step, foreach, items, context, run)
    await attempt.recall(await run.recorded(record.position, bool(step.save_as)))
    await attempt.work()
    return attempt.result()


def _items(foreach: Foreach, context: Mapping[str, Any]) -> list[Any]:
    items = templates.render(foreach.items, context, "foreach.items")
    if not isinstance(items, list):
        raise TemplateNotRendered(f"foreach.items must become a list; {clip(str(foreach.items))} {describe(items)}")
    if len(items) > MAX_ITEMS:
        raise InputNotValid(f"foreach.items has {len(items)} items, at most {MAX_ITEMS}")
    return items


def _all_arguments(step: Step, foreach: Foreach, items: list[Any], context: Mapping[str, Any]) -> list[Any]:
    """What the tool will be given for each item; they are shown together, and so have 1 MiB in all."""
    budget = Budget()
    each = (templates.render(dict(step.with_), {**context, foreach.name: item}, budget=budget) for item in items)
    arguments, size = [], 0
    for rendered in each:
        size += len(canonical.encode(rendered))
        if size > templates.MAX_RENDERED_BYTES:
            raise InputNotValid(f"what is to be approved has more than {templates.MAX_RENDERED_BYTES} bytes in all")
        arguments.append(rendered)
    return arguments


@dataclass
class _Attempt:
    """One attempt at all items."""

    record: run_pb2.RunStep
    step: Step
    foreach: Foreach
    items: list[Any]
    context: Mapping[str, Any]
    run: Surroundings
    _settled: dict[int, Any] = field(default_factory=dict)
    """The items that are done with, and what is saved of each."""
    _tries: dict[int, int] = field(default_factory=dict)
    """How often those were tried before that are not."""
    _errors: dict[int, run_pb2.RunError] = field(default_factory=dict)
    _waits: list[timedelta] = field(default_factory=list)
    """Of those that are tried again later."""
    _retry_after: float | None = None
    _stopped: bool = False
    _bytes: int = 0

    async def recall(self, recorded: list[run_pb2.RunStep]) -> None:
        """Takes over what earlier attempts did."""
        for item in recorded:
            if item.item >= len(self.items):
                continue
            if is_settled(self.step, item):
                is_wanted = self.step.save_as and item.status == run_pb2.STEP_STATUS_SUCCEEDED
                self._settle(item, await self.run.outputs.of(item) if is_wanted else None)
            else:
                self._tries[item.item] = item.tries

    async def work(self) -> None:
        """Does what is left, so many at one time as the step says."""
        left = [index for index in range(len(self.items)) if index not in self._settled]
        turns = iter(left)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.foreach.parallel, len(left))):
                    group.create_task(self._take_turns(turns))
        except BaseExceptionGroup as errors:
            # Whichever came first: it ended the others.
            raise errors.exceptions[0] from None

    def result(self) -> StepResult:
        total, record = len(self.items), self.record
        if self.run.is_canceled() and len(self._settled) + len(self._errors) < total:
            return StepResult(record, canceled=True)
        succeeded = len(self._settled.keys() - self._errors.keys())
        record.items.CopyFrom(run_pb2.StepItems(total=total, succeeded=succeeded, failed=len(self._errors)))
        output = [self._settled[index] for index in range(total)] if len(self._settled) == total else None
        if self._errors:
            wait = None if self._stopped or not self._waits else max(self._waits)
            return StepResult(record, output, self._failure(), wait)
        record.status = run_pb2.STEP_STATUS_SUCCEEDED
        return StepResult(record, output)

    async def _take_turns(self, turns: Iterator[int]) -> None:
        for index in turns:
            if self._stopped or self.run.is_canceled():
                return
            await self._do(index)

    async def _do(self, index: int) -> None:
        context = {**self.context, self.foreach.name: self.items[index]}
        tries = self._tries.get(index, 0) + 1
        self.record.tries = max(self.record.tries, tries)
        result = await self.run.runner.run_item(self.record, self.step, context, item=index, tries=tries)
        if result.failure is None:
            await self.run.outputs.record(result.record, result.output)
        await self.run.report(result.record)
        if is_settled(self.step, result.record):
            self._settle(result.record, result.output)
        elif result.failure is not None:
            self._note(result.record, result.failure, result.wait)

    def _settle(self, item: run_pb2.RunStep, output: Any) -> None:
        if item.status == run_pb2.STEP_STATUS_FAILED:
            self._errors[item.item] = item.error
            output = error_output(item.error)
        if not self.step.save_as:
            output = None  # nobody can refer to it, so there may be any amount
        self._bytes += len(orjson.dumps(output))
        if self._bytes > MAX_FILE_BYTES:
            raise InputNotValid(f"the outputs of the items have more than {MAX_FILE_BYTES} bytes in all")
        self._settled[item.item] = output

    def _note(self, item: run_pb2.RunStep, failure: StepFailed, wait: timedelta | None) -> None:
        self._errors[item.item] = item.error
        self._retry_after = max(self._retry_after or 0, failure.retry_after or 0) or None
        if wait is None:
            self._stopped = True
        else:
            self._waits.append(wait)

    def _failure(self) -> StepFailed:
        """The failure of the first item that has one, as that of the whole step."""
        index, error = min(self._errors.items(), key=lambda entry: entry[0])
        message = f"item {index}: {error.message}"
        if len(self._errors) > 1:
            message = f"{len(self._errors)} of {len(self.items)} items failed; the first, {message}"
        return failures.from_error(error, message, self._retry_after)
