"""Tasks that wait for conditions, and the worker that probes them, as tests play it."""

from typing import Any

from baton.tasks.v1 import condition_pb2, task_pb2, task_service_pb2
from baton.tasks.v1 import probe_service_pb2 as pb
from baton.tasks.v1.probe_service_pb2_grpc import ProbeServiceStub

from services.chassis.ids import new_id
from services.chassis.structs import to_struct, to_value
from tests.integration.tasks.running import Tasks

CONDITION = task_pb2.SCHEDULE_KIND_CONDITION
DIGEST = "0" * 64


def condition(
    every_seconds: int = 60, cooldown_seconds: int = 0, uses: str = "echo.test", with_: Any = None, **probe: Any
) -> task_pb2.Condition:
    """What is asked: nothing much, unless more is said."""
    asked = task_pb2.Probe(uses=uses, **{"with": to_struct(with_ or {})}, **probe)
    return task_pb2.Condition(probe=asked, every_seconds=every_seconds, cooldown_seconds=cooldown_seconds)


async def waiting_until(tasks: Tasks, expression: str = "result.up", **fields: Any) -> task_pb2.Task:
    """Creates a task that waits for a condition."""
    fields = {"condition": condition(), **fields}
    return await tasks.create(schedule_kind=CONDITION, schedule_expr=expression, **fields)


def prober(tasks: Tasks) -> ProbeServiceStub:
    return ProbeServiceStub(tasks.channel())


async def lease(tasks: Tasks, limit: int = 10) -> list[pb.LeasedProbe]:
    """Leases due probes as a new worker."""
    return list((await prober(tasks).LeaseProbes(pb.LeaseProbesRequest(worker_id=new_id(), limit=limit))).probes)


def evaluated(lease: pb.ProbeLease, holds: bool, result: Any = None) -> pb.ProbeReport:
    value = to_value(result) if holds else None
    told = pb.ProbeEvaluated(holds=holds, result=value, excerpt='{"up":true}', result_digest=DIGEST)
    return pb.ProbeReport(lease=lease, evaluated=told)


def failed(lease: pb.ProbeLease, error: str = "the tool is down") -> pb.ProbeReport:
    return pb.ProbeReport(lease=lease, failed=pb.ProbeFailed(error=error))


async def report(tasks: Tasks, *reports: pb.ProbeReport) -> list[bool]:
    """Reports; answers for each whether it was accepted."""
    response = await prober(tasks).ReportProbes(pb.ReportProbesRequest(reports=reports))
    return [receipt.accepted for receipt in response.receipts]


async def tell(tasks: Tasks, *told: bool | None, seconds: float = 60) -> None:
    """Lets the only condition be probed at once, and every so often then: true, false, or with an error."""
    for holds in told:
        (probe,) = await lease(tasks)
        one = failed(probe.lease) if holds is None else evaluated(probe.lease, holds, {"up": True})
        assert await report(tasks, one) == [True]
        tasks.clock.advance(seconds=seconds)


async def evaluations(tasks: Tasks, task_id: str, **fields: Any) -> list[condition_pb2.Evaluation]:
    """What was told, newest first."""
    request = task_service_pb2.ListEvaluationsRequest(task_id=task_id, **{"limit": 200, **fields})
    return list((await tasks.tasks.ListEvaluations(request)).items)


async def explain(tasks: Tasks, task_id: str) -> task_service_pb2.ExplainTaskResponse:
    return await tasks.tasks.ExplainTask(task_service_pb2.ExplainTaskRequest(task_id=task_id))
