"""Who may call what."""

from collections.abc import Iterator
from typing import Any

import pytest
from baton.api.v1 import annotations_pb2
from baton.tasks.v1 import (
    approval_service_pb2,
    event_service_pb2,
    file_service_pb2,
    ledger_service_pb2,
    probe_service_pb2,
    routing_service_pb2,
    run_service_pb2,
    task_service_pb2,
    tool_service_pb2,
    webhook_service_pb2,
    work_service_pb2,
)
from baton.tasks.v1.run_service_pb2 import ExportRunsRequest
from baton.tasks.v1.run_service_pb2_grpc import RunServiceStub
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc.aio import Channel

from services.chassis.errors import PermissionDenied, ServiceError, Unauthenticated
from tests.integration.tasks.running import Tasks, one_engine

# What each RPC needs; a change of the contract is a change here.
NEEDED = {
    "CreateTask": "tasks:write",
    "PreviewTask": "tasks:write",
    "GetTask": "tasks:read",
    "ListTasks": "tasks:read",
    "UpdateTask": "tasks:write",
    "RunTaskNow": "tasks:write",
    "SnoozeTask": "tasks:write",
    "PauseTask": "tasks:write",
    "ResumeTask": "tasks:write",
    "CancelTask": "tasks:write",
    "RouteTask": "tasks:write",
    "ListOccurrences": "tasks:read",
    "ListEvaluations": "tasks:read",
    "LeaseProbes": "runs:work",
    "ReportProbes": "runs:work",
    "ExplainTask": "tasks:read",
    "CreateRuns": "tasks:write",
    "CancelRun": "tasks:write",
    "RetryRun": "tasks:write",
    "ExplainRun": "runs:read",
    "ExportRunsAsNdjson": "runs:read",
    "GetLatestRun": "runs:read",
    "GetTaskRunStats": "runs:read",
    "GetRunStatsSummary": "runs:read",
    "PruneRuns": "admin",
    "CreateLedgerRun": "runs:report",
    "UpdateLedgerRun": "runs:report",
    "ListLedgerRuns": "runs:read",
    "PageLedgerRuns": "runs:read",
    "ExportLedgerRuns": "runs:read",
    "PruneLedgerRuns": "admin",
    "ApproveLedgerRun": "approvals:decide",
    "RejectLedgerRun": "approvals:decide",
    "CancelLedgerRun": "approvals:decide",
    "GetRun": "runs:read",
    "ListRuns": "runs:read",
    "ListRunSteps": "runs:read",
    "ExportRuns": "runs:read",
    "ListStepItems": "runs:read",
    "ListItems": "runs:work",
    "PutFile": "runs:work",
    "UseApproval": "runs:work",
    "RequestApproval": "approvals:request",
    "ListApprovals": "approvals:read",
    "GetApproval": "approvals:read",
    "ApproveApproval": "approvals:decide",
    "RejectApproval": "approvals:decide",
    "GetFile": "runs:read",
    "LeaseRuns": "runs:work",
    "RenewRuns": "runs:work",
    "ReportRuns": "runs:work",
    "CreateToolServer": "admin",
    "GetToolServer": "tools:admin",
    "UpdateToolServer": "admin",
    "DeleteToolServer": "admin",
    "ListToolServers": "tools:admin",
    "ListTools": "tools:read",
    "ReportTools": "tools:admin",
    "PublishEvent": "events:publish",
    "ReplayEvent": "events:publish",
    "GetEvent": "events:read",
    "ListEvents": "events:read",
    "ListEventDeliveries": "events:read",
    "ListEventTopics": "events:read",
    "ListRecentEvents": "events:read",
    "PruneEvents": "admin",
    "CreateWebhook": "webhooks:admin",
    "ListWebhooks": "webhooks:admin",
    "GetWebhook": "webhooks:admin",
    "UpdateWebhook": "webhooks:admin",
    "DeleteWebhook": "webhooks:admin",
    "RotateWebhookSecret": "webhooks:admin",
    "ListWebhookDeliveries": "webhooks:admin",
    "RedeliverWebhookDelivery": "webhooks:admin",
    "RedeliverWebhook": "webhooks:admin",
}


FILES = (
    approval_service_pb2,
    event_service_pb2,
    file_service_pb2,
    ledger_service_pb2,
    routing_service_pb2,
    probe_service_pb2,
    run_service_pb2,
    task_service_pb2,
    tool_service_pb2,
    webhook_service_pb2,
    work_service_pb2,
)


def methods() -> Iterator[MethodDescriptor]:
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from service.methods


async def call(channel: Channel, method: MethodDescriptor) -> Any:
    """Calls a method with an empty request."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    request, response = (GetMessageClass(message) for message in (method.input_type, method.output_type))
    if method.server_streaming:
        stream = channel.unary_stream(path, Message.SerializeToString, response.FromString)
        return [message async for message in stream(request())]
    return await channel.unary_unary(path, Message.SerializeToString, response.FromString)(request())


@one_engine
async def test_each_method_needs_its_scope_and_no_other_one_will_do(tasks: Tasks) -> None:
    assert {method.name for method in methods()} == set(NEEDED)
    for method in methods():
        scope = NEEDED[method.name]
        with pytest.raises(PermissionDenied) as refused:
            await call(tasks.channel(set(NEEDED.values()) - {scope, "admin"}), method)
        assert refused.value.reason == "SCOPE_MISSING", method.name
        assert refused.value.metadata == {"scope": scope}


async def test_the_scope_or_admin_is_enough(tasks: Tasks) -> None:
    async def answer(method: MethodDescriptor, scope: str) -> str:
        try:
            await call(tasks.channel([scope]), method)
        except ServiceError as error:
            return error.code.name
        return "OK"

    for method in methods():
        for scope in (NEEDED[method.name], "admin"):
            # It is let in; an empty request may then be found to say too little.
            assert await answer(method, scope) in ("OK", "INVALID_ARGUMENT"), method.name


@one_engine
async def test_nothing_is_open(tasks: Tasks) -> None:
    for token, reason in ((None, "TOKEN_MISSING"), ("not a token", "TOKEN_INVALID")):
        channel = tasks.channel_with(token)
        for method in methods():
            with pytest.raises(Unauthenticated) as refused:
                await call(channel, method)
            assert refused.value.reason == reason, method.name


@one_engine
async def test_an_export_is_refused_before_its_first_byte(tasks: Tasks) -> None:
    export = RunServiceStub(tasks.channel(["tasks:read"])).ExportRuns(ExportRunsRequest())
    with pytest.raises(PermissionDenied):
        await anext(aiter(export))


def test_what_changes_something_is_marked_so() -> None:
    mutating = {method.name for method in methods() if method.GetOptions().Extensions[annotations_pb2.policy].mutates}
    assert mutating == {
        "CreateTask", "UpdateTask", "RunTaskNow", "SnoozeTask", "PauseTask", "ResumeTask", "CancelTask",
        "CreateRuns", "CancelRun", "RetryRun", "PruneRuns", "LeaseRuns", "RenewRuns", "ReportRuns",
        "CreateLedgerRun", "UpdateLedgerRun", "ApproveLedgerRun", "RejectLedgerRun", "CancelLedgerRun",
        "PruneLedgerRuns", "CreateToolServer", "UpdateToolServer", "DeleteToolServer", "ReportTools", "PutFile",
        "PublishEvent", "ReplayEvent", "PruneEvents",
        "UseApproval", "RequestApproval", "ApproveApproval", "RejectApproval", "RouteTask",
        "CreateWebhook", "UpdateWebhook", "DeleteWebhook", "RotateWebhookSecret",
        "RedeliverWebhookDelivery", "RedeliverWebhook", "LeaseProbes", "ReportProbes",
    }  # fmt: skip
