"""The tasks service as a worker sees it, in memory: leases with fencing, reports, tool servers; and the agents that it
asks the sessions service for.

It keeps the promises of the contract and can be told to fail; it is no list of expected calls.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
from baton.api.v1 import auth_service_pb2, auth_service_pb2_grpc
from baton.sessions.v1 import agent_pb2, agent_service_pb2, agent_service_pb2_grpc
from baton.tasks.v1 import (
    approval_pb2,
    event_service_pb2,
    event_service_pb2_grpc,
    file_service_pb2,
    file_service_pb2_grpc,
    probe_service_pb2,
    probe_service_pb2_grpc,
    run_pb2,
    tool_pb2,
    tool_service_pb2,
    tool_service_pb2_grpc,
    work_service_pb2,
    work_service_pb2_grpc,
)
from google.api import httpbody_pb2

from services.chassis import structs
from services.chassis.ids import new_id
from tests.support.grpc import serve_in_process
from tests.support.waiting import await_until

LEASE = timedelta(seconds=30)
MAX_ADDRESS = 200


@dataclass
class FakeRun:
    """One run and all that was recorded of it."""

    payload: dict[str, Any]
    id: str = field(default_factory=new_id)
    task: str = "a task"
    role: str = ""
    created_by: str = field(default_factory=new_id)
    traceparent: str = ""
    event: dict[str, Any] | None = None
    event_topic: str = ""
    event_id: str = ""
    attempt: int = 0
    cancel_requested: bool = False
    token: str = ""
    steps: list[run_pb2.RunStep] = field(default_factory=list)
    items: list[run_pb2.RunStep] = field(default_factory=list)
    asked: list[work_service_pb2.RunAwaitsApproval] = field(default_factory=list)
    """What was asked; the run waits until it is answered."""
    approvals: list[approval_pb2.Approval] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    deferred: list[work_service_pb2.RunDeferred] = field(default_factory=list)
    """How often it was, and why; here it need not wait."""
    outcome: work_service_pb2.RunReport | None = None
    released: int = 0
    leased_by: str = ""
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def held(self) -> bool:
        return bool(self.token)

    @property
    def error(self) -> run_pb2.RunError:
        assert self.outcome is not None
        return self.outcome.failed.error

    @property
    def output(self) -> dict[str, Any]:
        assert self.outcome is not None
        return structs.from_struct(getattr(self.outcome, self.ending).output)

    @property
    def ending(self) -> str:
        """`succeeded`, `failed`, `canceled`; empty while the run has not ended."""
        return (self.outcome and self.outcome.WhichOneof("outcome")) or ""

    def step_output(self, step_id: str) -> Any:
        return next(structs.from_value(step.output) for step in self.steps if step.id == step_id)


@dataclass
class FakeProbe:
    """The probe of one condition, and all that was told of it."""

    expression: str
    uses: str = "echo.test"
    with_: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    timeout_seconds: float = 10.0
    lasts: timedelta = field(default=timedelta(seconds=70))
    task_id: str = field(default_factory=new_id)
    token: str = ""
    is_due: bool = True
    leased: int = 0
    leased_by: str = ""
    reports: list[probe_service_pb2.ProbeReport] = field(default_factory=list)


class FakeTasks(
    event_service_pb2_grpc.EventServiceServicer,
    file_service_pb2_grpc.FileServiceServicer,
    probe_service_pb2_grpc.ProbeServiceServicer,
    work_service_pb2_grpc.WorkServiceServicer,
    tool_service_pb2_grpc.ToolServiceServicer,
    auth_service_pb2_grpc.AuthServiceServicer,
    agent_service_pb2_grpc.AgentServiceServicer,
):
    """Holds runs and tool servers; `address` is set while it serves."""

    def __init__(self) -> None:
        self.address = ""
        self.runs: dict[str, FakeRun] = {}
        self.tool_servers: dict[str, tool_pb2.ToolServer] = {}
        self.tools: dict[str, list[str]] = {}
        self.offers: dict[str, tool_service_pb2.ReportToolsRequest] = {}
        """What was last told of each server's tools."""
        self.tool_errors: dict[str, str] = {}
        """What was last said of a server whose tools could not be asked for; nothing once they could."""
        self.looked = 0
        """How often the tool servers were listed, to the end."""
        self.agents: dict[str, list[str]] = {}
        """The scopes of the agents there are."""
        self.archived: set[str] = set()
        """Those of them that are archived."""
        self.agents_read = 0
        self.reports: list[work_service_pb2.RunReport] = []
        self.batches: list[int] = []
        self.polls = 0
        """Workers that wait for work right now."""
        self.refused = 0
        self.renewed = 0
        self.files: dict[str, bytes] = {}
        self.probes: list[FakeProbe] = []
        self.probe_calls = 0
        self.failed = Counter[str]()
        """How many calls of each method have failed as they were told to."""
        self.report_traceparents: list[str] = []
        self.published: list[tuple[str, event_service_pb2.PublishEventRequest]] = []
        """Under which credentials, and what."""
        self.paused = asyncio.Event()
        self.paused.set()
        self._queue: list[FakeRun] = []
        self._arrived = asyncio.Condition()
        self._failures: Counter[str] = Counter()
        self._codes: dict[str, grpc.StatusCode] = {}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeTasks"]:
        server = grpc.aio.server()
        work_service_pb2_grpc.add_WorkServiceServicer_to_server(self, server)
        event_service_pb2_grpc.add_EventServiceServicer_to_server(self, server)
        file_service_pb2_grpc.add_FileServiceServicer_to_server(self, server)
        probe_service_pb2_grpc.add_ProbeServiceServicer_to_server(self, server)
        tool_service_pb2_grpc.add_ToolServiceServicer_to_server(self, server)
        auth_service_pb2_grpc.add_AuthServiceServicer_to_server(self, server)
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(self, server)
        async with serve_in_process(server) as self.address:
            yield self

    async def enqueue(self, *steps: Mapping[str, Any], params: Mapping[str, Any] | None = None, **run: Any) -> FakeRun:
        queued = FakeRun({"pipeline": list(steps), "params": dict(params or {})}, **run)
        self.runs[queued.id] = queued
        await self._requeue(queued)
        return queued

    async def ended(self, run: FakeRun, timeout: float = 10.0) -> FakeRun:
        """The run once its outcome is recorded."""
        await await_until(lambda: run.outcome is not None, timeout)
        return run

    def fail(self, method: str, times: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        """Makes the next `times` calls of `method` fail."""
        self._failures[method] = times
        self._codes[method] = code

    async def answer(self, run: FakeRun, status: approval_pb2.ApprovalStatus.ValueType, note: str = "") -> None:
        """Answers what was last asked of the run, which then goes on."""
        asked = run.asked[-1]
        run.approvals.append(
            approval_pb2.Approval(
                id=new_id(),
                run_id=run.id,
                step_id=asked.step_id,
                action_digest=asked.action_digest,
                status=status,
                decided_by="somebody",
                note=note,
            )
        )
        await self._requeue(run)

    async def take_away(self, run: FakeRun) -> None:
        """What the reaper does to an expired lease: the run is somebody else's from now on."""
        run.token = str(uuid4())
        run.attempt += 1

    async def expire(self, run: FakeRun) -> None:
        """The lease ran out: whoever asks next gets the run."""
        run.token = ""
        await self._requeue(run)

    def add_stdio_server(self, name: str, *command: str, timeout_seconds: int = 30, **env: str) -> None:
        self.tool_servers[name] = tool_pb2.ToolServer(
            name=name,
            transport=tool_pb2.TOOL_TRANSPORT_STDIO,
            command=command,
            env=env,
            timeout_seconds=timeout_seconds,
            enabled=True,
        )

    def add_http_server(self, name: str, url: str, timeout_seconds: int = 30) -> None:
        self.tool_servers[name] = tool_pb2.ToolServer(
            name=name,
            transport=tool_pb2.TOOL_TRANSPORT_HTTP,
            url=url,
            timeout_seconds=timeout_seconds,
            enabled=True,
        )

    async def LeaseRuns(self, request: Any, context: Any) -> work_service_pb2.LeaseRunsResponse:
        await self._maybe_fail("LeaseRuns", context)
        self.polls += 1
        try:
            async with self._arrived, asyncio.timeout(request.wait_seconds):
                taken = await self._arrived.wait_for(lambda: self._take(request.role, request.limit))
        except TimeoutError:
            return work_service_pb2.LeaseRunsResponse()
        finally:
            self.polls -= 1
        token = str(uuid4())  # one for the batch, as the real service does
        return work_service_pb2.LeaseRunsResponse(runs=[self._lease(run, request.worker_id, token) for run in taken])

    async def RenewRuns(self, request: Any, context: Any) -> work_service_pb2.RenewRunsResponse:
        await self._maybe_fail("RenewRuns", context)
        response = work_service_pb2.RenewRunsResponse()
        for lease in request.leases:
            answer = response.leases.add(run_id=lease.run_id)
            if self._holds(lease):
                answer.expires_at.FromDatetime(datetime.now(UTC) + LEASE)
                answer.cancel_requested = self.runs[lease.run_id].cancel_requested
                self.renewed += 1
        return response

    async def ReportRuns(self, request: Any, context: Any) -> work_service_pb2.ReportRunsResponse:
        await self._maybe_fail("ReportRuns", context)
        await self.paused.wait()
        self.batches.append(len(request.reports))
        self.report_traceparents.append(dict(context.invocation_metadata()).get("traceparent", ""))
        response = work_service_pb2.ReportRunsResponse()
        for report in request.reports:
            accepted = self._holds(report.lease)
            receipt = response.receipts.add(run_id=report.lease.run_id, accepted=accepted)
            if accepted:
                receipt.cancel_requested = self.runs[report.lease.run_id].cancel_requested
                await self._record(report)
            else:
                self.refused += 1
        return response

    async def UseApproval(self, request: Any, context: Any) -> work_service_pb2.UseApprovalResponse:
        await self._maybe_fail("UseApproval", context)
        run = self.runs[request.lease.run_id]
        given = {approval.id: approval for approval in run.approvals}.get(request.approval_id)
        if not self._holds(request.lease) or given is None or given.action_digest != request.action_digest:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this call is not approved")
        run.used.append(request.approval_id)
        return work_service_pb2.UseApprovalResponse()

    async def ListItems(self, request: Any, context: Any) -> work_service_pb2.ListItemsResponse:
        await self._maybe_fail("ListItems", context)
        if not self._holds(request.lease):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the lease is lost")
        of_step = [item for item in self.runs[request.lease.run_id].items if item.position == request.position]
        newest = {item.item: item for item in of_step}
        after = request.after if request.HasField("after") else -1
        behind = [item for index, item in sorted(newest.items()) if index > after]
        # Two at a time, so that whoever reads only the first is found out.
        return work_service_pb2.ListItemsResponse(items=behind[:2], has_more=len(behind) > 2)

    async def LeaseProbes(self, request: Any, context: Any) -> probe_service_pb2.LeaseProbesResponse:
        self.probe_calls += 1
        await self._maybe_fail("LeaseProbes", context)
        due = [probe for probe in self.probes if probe.is_due][: request.limit]
        return probe_service_pb2.LeaseProbesResponse(probes=[self._lease_probe(one, request.worker_id) for one in due])

    async def ReportProbes(self, request: Any, context: Any) -> probe_service_pb2.ReportProbesResponse:
        await self._maybe_fail("ReportProbes", context)
        response = probe_service_pb2.ReportProbesResponse()
        for report in request.reports:
            probe = next(one for one in self.probes if one.task_id == report.lease.task_id)
            accepted = bool(probe.token) and probe.token == report.lease.token
            response.receipts.add(task_id=probe.task_id, accepted=accepted)
            if accepted:
                probe.token, probe.is_due = "", report.HasField("released")
                probe.reports.append(report)
        return response

    async def PutFile(self, request: Any, context: Any) -> file_service_pb2.PutFileResponse:
        await self._maybe_fail("PutFile", context)
        digest = hashlib.sha256(request.content).hexdigest()
        self.files[digest] = request.content
        return file_service_pb2.PutFileResponse(uri=f"/files/{digest}")

    async def GetFile(self, request: Any, context: Any) -> AsyncIterator[httpbody_pb2.HttpBody]:
        await self._maybe_fail("GetFile", context)
        if request.digest not in self.files:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such file")
        yield httpbody_pb2.HttpBody(data=self.files[request.digest][:1000])
        yield httpbody_pb2.HttpBody(data=self.files[request.digest][1000:])

    async def ListToolServers(self, request: Any, context: Any) -> tool_service_pb2.ListToolServersResponse:
        await self._maybe_fail("ListToolServers", context)
        names = sorted(name for name in self.tool_servers if name > request.cursor)
        # One per page, so that whoever reads only the first is found out.
        page = [self.tool_servers[name] for name in names[:1]]
        more = len(names) > 1
        self.looked += not more
        return tool_service_pb2.ListToolServersResponse(
            items=page, has_more=more, next_cursor=page[-1].name if more else None
        )

    async def ReportTools(self, request: Any, context: Any) -> tool_service_pb2.ReportToolsResponse:
        await self._maybe_fail("ReportTools", context)
        if any(len(tool.address) > MAX_ADDRESS for tool in request.tools):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"an address is longer than {MAX_ADDRESS} characters")
        status = self.tool_servers[request.server].status
        status.last_error = request.error
        if request.error:
            self.tool_errors[request.server] = request.error
        else:
            self.tools[request.server] = [tool.address for tool in request.tools]
            self.offers[request.server] = request
            self.tool_errors.pop(request.server, None)
            status.tools_known_at.FromDatetime(datetime.now(UTC))
        return tool_service_pb2.ReportToolsResponse()

    async def ExchangeToken(self, request: Any, context: Any) -> auth_service_pb2.ExchangeTokenResponse:
        return auth_service_pb2.ExchangeTokenResponse(access_token=f"exchanged-{request.token}")

    async def ActForAgent(self, request: Any, context: Any) -> auth_service_pb2.ActForAgentResponse:
        await self._maybe_fail("ActForAgent", context)
        return auth_service_pb2.ActForAgentResponse(access_token=f"{request.agent_id} in {request.run_id}")

    async def PublishEvent(self, request: Any, context: Any) -> event_service_pb2.PublishEventResponse:
        await self._maybe_fail("PublishEvent", context)
        self.published.append((dict(context.invocation_metadata())["authorization"], request))
        return event_service_pb2.PublishEventResponse(details=event_service_pb2.PublishedEvent(event_id=new_id()))

    async def GetAgent(self, request: Any, context: Any) -> agent_service_pb2.GetAgentResponse:
        self.agents_read += 1
        await self._maybe_fail("GetAgent", context)
        if request.agent_id not in self.agents:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such agent")
        archived = request.agent_id in self.archived
        agent = agent_pb2.Agent(id=request.agent_id, scopes=self.agents[request.agent_id], archived=archived)
        return agent_service_pb2.GetAgentResponse(agent=agent)

    async def _not_here(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    CreateToolServer = GetToolServer = UpdateToolServer = DeleteToolServer = ListTools = _not_here
    CreateAgent = CreateToken = RevokeToken = _not_here
    ReplayEvent = GetEvent = ListEvents = ListEventDeliveries = _not_here
    ListEventTopics = ListRecentEvents = PruneEvents = _not_here

    def _take(self, role: str, limit: int) -> list[FakeRun]:
        taken = [run for run in self._queue if run.role == role][:limit]
        for run in taken:
            self._queue.remove(run)
        return taken

    def _holds(self, lease: work_service_pb2.Lease) -> bool:
        run = self.runs[lease.run_id]
        return run.held and (run.token, run.attempt) == (lease.token, lease.attempt)

    def _lease(self, run: FakeRun, worker_id: str, token: str) -> work_service_pb2.LeasedRun:
        run.attempt += 1
        run.token = token
        run.leased_by = worker_id
        leased = work_service_pb2.LeasedRun(
            lease=work_service_pb2.Lease(run_id=run.id, attempt=run.attempt, token=run.token),
            task_id=new_id(),
            task=run.task,
            payload=structs.to_struct(run.payload),
            steps=run.steps,
            traceparent=run.traceparent,
            approvals=run.approvals,
            event=None if run.event is None else structs.to_struct(run.event),
            event_topic=run.event_topic,
            event_id=run.event_id,
            created_by=run.created_by,
        )
        leased.expires_at.FromDatetime(datetime.now(UTC) + LEASE)
        leased.created_at.FromDatetime(run.created_at)
        leased.started_at.FromDatetime(run.started_at)
        return leased

    def _lease_probe(self, probe: FakeProbe, worker_id: str) -> probe_service_pb2.LeasedProbe:
        probe.token, probe.is_due, probe.leased_by = str(uuid4()), False, worker_id
        probe.leased += 1
        leased = probe_service_pb2.LeasedProbe(
            lease=probe_service_pb2.ProbeLease(task_id=probe.task_id, token=probe.token),
            number=7,
            task="a task",
            uses=probe.uses,
            timeout_seconds=probe.timeout_seconds,
            params=structs.to_struct(probe.params),
            expression=probe.expression,
            **{"with": structs.to_struct(probe.with_)},
        )
        leased.lasts.FromTimedelta(probe.lasts)
        leased.leased_at.FromDatetime(datetime.now(UTC))
        return leased

    async def _record(self, report: work_service_pb2.RunReport) -> None:
        run = self.runs[report.lease.run_id]
        self.reports.append(report)
        run.steps.extend(step for step in report.steps if not step.HasField("item"))
        run.items.extend(step for step in report.steps if step.HasField("item"))
        if report.HasField("released"):
            run.released += 1
            run.token = ""
            await self._requeue(run)
        elif report.HasField("awaiting_approval"):
            run.asked.append(report.awaiting_approval)
            run.token = ""
        elif report.HasField("deferred"):
            run.deferred.append(report.deferred)
            run.token = ""
            await self._requeue(run)
        elif report.WhichOneof("outcome"):
            run.token = ""
            run.outcome = report

    async def _requeue(self, run: FakeRun) -> None:
        async with self._arrived:
            self._queue.append(run)
            self._arrived.notify_all()

    async def _maybe_fail(self, method: str, context: Any) -> None:
        if self._failures[method] > 0:
            self._failures[method] -= 1
            self.failed[method] += 1
            await context.abort(self._codes[method], "told to fail")
