"""Who may call what. That nobody else may is shown in tests/e2e/test_authorisation.py, of every method."""

from baton.api.v1 import annotations_pb2
from baton.workflows.v1 import handoff_service_pb2, template_service_pb2, workflow_service_pb2

# What each RPC needs; a change of the contract is a change here.
NEEDED = {
    "CreateTemplate": "admin",
    "ListTemplates": "workflows:read",
    "GetTemplate": "workflows:read",
    "DeleteTemplate": "admin",
    "StartWorkflow": "workflows:write",
    "ListWorkflows": "workflows:read",
    "GetWorkflow": "workflows:read",
    "AdvanceWorkflow": "workflows:write",
    "GetWorkflowStatus": "workflows:read",
    "RequestRetry": "workflows:write",
    "RollBackWorkflow": "workflows:write",
    "CancelWorkflow": "workflows:write",
    "GetWorkflowHistory": "workflows:read",
    "ListWorkflowEvents": "workflows:read",
    "GetProjectStats": "workflows:read",
    "ListHandoffs": "workflows:read",
    "GetHandoff": "workflows:read",
    "AcceptHandoff": "workflows:write",
    "RejectHandoff": "workflows:write",
}


def test_each_method_names_its_scope() -> None:
    methods = [
        one
        for file in (handoff_service_pb2, template_service_pb2, workflow_service_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for one in service.methods
    ]
    assert {one.name: one.GetOptions().Extensions[annotations_pb2.policy].scope for one in methods} == NEEDED
