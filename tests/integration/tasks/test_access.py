"""Who may call what. That nobody else may is shown in tests/e2e/test_authorisation.py, of every method."""

from collections.abc import Iterator
from typing import Any

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
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc.aio import Channel

from services.chassis.errors import ServiceError
from tests.integration.tasks.running import Tasks

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
    "Notify": "tasks:write",
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
    "WatchRuns": "runs:read",
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
    request, response = (GetMessageClass(message)() for message in (method.input_type, method.output_type))
    if method.server_streaming:
        stream = channel.unary_stream(path, type(request).SerializeToString, type(response).FromString)
        messages = stream(request)
        # The first is enough: one that tells what happens has no last.
        first = await anext(aiter(messages), None)
        messages.cancel()
        return first
    return await channel.unary_unary(path, type(request).SerializeToString, type(response).FromString)(request)


def _policy(method: MethodDescriptor) -> annotations_pb2.MethodPolicy:
    policy: annotations_pb2.MethodPolicy = method.GetOptions().Extensions[annotations_pb2.policy]
    return policy


def test_each_method_names_its_scope() -> None:
    assert {method.name: _policy(method).scope for method in methods()} == NEEDED


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


def test_what_changes_something_is_marked_so() -> None:
    mutating = {method.name for method in methods() if _policy(method).mutates}
    assert mutating == {
        "CreateTask", "UpdateTask", "RunTaskNow", "SnoozeTask", "PauseTask", "ResumeTask", "CancelTask",
        "CreateRuns", "CancelRun", "RetryRun", "PruneRuns", "LeaseRuns", "RenewRuns", "ReportRuns",
        "CreateLedgerRun", "UpdateLedgerRun", "ApproveLedgerRun", "RejectLedgerRun", "CancelLedgerRun",
        "PruneLedgerRuns", "CreateToolServer", "UpdateToolServer", "DeleteToolServer", "ReportTools", "PutFile",
        "PublishEvent", "ReplayEvent", "PruneEvents",
        "UseApproval", "RequestApproval", "ApproveApproval", "RejectApproval", "RouteTask", "Notify",
        "CreateWebhook", "UpdateWebhook", "DeleteWebhook", "RotateWebhookSecret",
        "RedeliverWebhookDelivery", "RedeliverWebhook", "LeaseProbes", "ReportProbes",
    }  # fmt: skip
