"""The probes of conditions: leased, done side by side, and what they told reported. None of this is a run."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from baton.tasks.v1 import probe_service_pb2 as pb
from baton.tasks.v1 import probe_service_pb2_grpc

from services import metric_names
from services.chassis import loops, structs, telemetry
from services.chassis.clock import instant_text
from services.chassis.errors import ServiceError
from services.chassis.timestamps import from_timestamp
from services.pipeline import canonical, templates
from services.pipeline.cel import Finding, compile_question
from services.pipeline.definition import MAX_DEPTH, is_too_deep
from services.pipeline.errors import ExpressionError, PipelineError
from services.worker.failures import MAX_MESSAGE, StepFailed
from services.worker.patience import ANSWER_SECONDS, until_answered
from services.worker.steps import ToolsOf
from services.worker.tools.use import User

MAX_PROBES = 10
"""Done at one time; others wait for the next worker, or the next second."""
MAX_RESULT_BYTES = 256 * 1024
"""Bytes of JSON that a probe may tell."""
_EXCERPT_BYTES = 1024
_REST_SECONDS = 1.0
_RELEASE_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Probing:
    """Asks once a second for the probes that are due, and does up to MAX_PROBES at a time."""

    def __init__(self, stub: probe_service_pb2_grpc.ProbeServiceStub, worker_id: str, tools: ToolsOf) -> None:
        self._stub = stub
        self._worker_id = worker_id
        self._tools = tools
        self._doing: dict[asyncio.Task[None], pb.ProbeLease] = {}
        self._probes = telemetry.meter().create_counter(
            metric_names.WORKER_PROBES, description="probes that were done, by outcome: evaluated or failed"
        )

    async def run(self) -> None:
        """Probes until cancelled; then gives back what is under way."""
        try:
            await loops.forever("probes", self._step, timeout=2 * ANSWER_SECONDS)
        finally:
            await self._give_back()

    async def _step(self) -> float:
        if room := MAX_PROBES - len(self._doing):
            asked_at = asyncio.get_running_loop().time()
            request = pb.LeaseProbesRequest(worker_id=self._worker_id, limit=room)
            response = await self._stub.LeaseProbes(request, timeout=ANSWER_SECONDS)
            for leased in response.probes:
                # From when it was asked for: the lease was not longer than this when the answer came.
                task = asyncio.create_task(self._do(leased, asked_at + leased.lasts.ToTimedelta().total_seconds()))
                self._doing[task] = leased.lease
                task.add_done_callback(self._doing.pop)
        return _REST_SECONDS

    async def _do(self, leased: pb.LeasedProbe, until: float) -> None:
        """Does one probe and reports what it told, while the lease lasts."""
        try:
            async with asyncio.timeout_at(until):
                report = await self._told(leased)
                report.lease.CopyFrom(leased.lease)
                self._probes.add(1, {"outcome": report.WhichOneof("outcome") or ""})
                request = pb.ReportProbesRequest(reports=[report])
                await until_answered(lambda: self._stub.ReportProbes(request, timeout=ANSWER_SECONDS))
        except (ServiceError, TimeoutError) as error:
            _log.warning("probe_not_reported", extra={"task_id": leased.lease.task_id, "error": str(error)})

    async def _told(self, leased: pb.LeasedProbe) -> pb.ProbeReport:
        try:
            result = await self._ask(leased)
            # It may take a few tenths of a second, which runs must not wait for.
            return await asyncio.to_thread(_evaluated, leased, result)
        except (PipelineError, StepFailed) as error:
            return _failed(str(error))
        except Exception:
            _log.exception("probe_crashed", extra={"task_id": leased.lease.task_id})
            return _failed("the worker failed to do this probe")

    async def _ask(self, leased: pb.LeasedProbe) -> Any:
        arguments = templates.render(structs.from_struct(getattr(leased, "with")), _context(leased))
        key = f"probe:{leased.lease.task_id}:{leased.number}"
        tools = self._tools.of(User(leased.created_by))
        return await tools.call(leased.uses, arguments, timeout=leased.timeout_seconds, key=key)

    async def _give_back(self) -> None:
        under_way = dict(self._doing)
        if not under_way:
            return
        for task in under_way:
            task.cancel()
        await asyncio.wait(under_way)
        released = [pb.ProbeReport(lease=lease, released=pb.ProbeReleased()) for lease in under_way.values()]
        try:
            await self._stub.ReportProbes(pb.ReportProbesRequest(reports=released), timeout=_RELEASE_SECONDS)
        except ServiceError as error:
            # Then they are due again when their leases end.
            _log.warning("probes_not_given_back", extra={"reason": error.reason})


def _context(leased: pb.LeasedProbe) -> Mapping[str, Any]:
    return {
        "now": instant_text(from_timestamp(leased.leased_at)),
        "params": structs.from_struct(leased.params),
        "task": {"id": leased.lease.task_id, "title": leased.task},
    }


def _evaluated(leased: pb.LeasedProbe, result: Any) -> pb.ProbeReport:
    """Whether the expression is true of what the tool answered; or why that cannot be told."""
    encoded = canonical.encode(result)
    told: dict[str, Any] = {"excerpt": _excerpt(encoded), "result_digest": canonical.digest(result)}
    if len(encoded) > MAX_RESULT_BYTES:
        return _failed(f"the result is {len(encoded)} bytes as JSON, at most {MAX_RESULT_BYTES} are allowed", **told)
    if is_too_deep({"result": result}):
        return _failed(f"the result is nested deeper than {MAX_DEPTH - 1} levels", **told)
    try:
        holds = compile_question(leased.expression).holds(Finding(result, structs.from_struct(leased.params)))
    except ExpressionError as error:
        return _failed(f"the expression {error}", **told)
    value = structs.to_value(result) if holds else None
    return pb.ProbeReport(evaluated=pb.ProbeEvaluated(holds=holds, result=value, **told))


def _excerpt(encoded: bytes) -> str:
    """The beginning, without half a character at its end."""
    return encoded[:_EXCERPT_BYTES].decode(errors="ignore")


def _failed(error: str, **told: Any) -> pb.ProbeReport:
    # No database keeps the character NUL.
    plain = error.replace("\x00", "")[:MAX_MESSAGE] or "the tool failed and did not say why"
    return pb.ProbeReport(failed=pb.ProbeFailed(error=plain, **told))
