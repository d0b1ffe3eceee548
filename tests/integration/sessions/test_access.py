"""Who may call what. That nobody else may is shown in tests/e2e/test_authorisation.py, of every method."""

from datetime import timedelta

import pytest
from baton.api.v1 import annotations_pb2
from baton.sessions.v1 import agent_service_pb2 as messages
from baton.sessions.v1 import (
    audit_service_pb2,
    budget_service_pb2,
    chat_service_pb2,
    credential_service_pb2,
    feed_service_pb2,
    log_service_pb2,
    orchestrator_service_pb2,
    prompt_service_pb2,
    session_service_pb2,
    usage_service_pb2,
)
from baton.sessions.v1.agent_service_pb2_grpc import AgentServiceStub

from services.chassis.errors import Unauthenticated
from tests.integration.sessions.running import Sessions

# What each RPC needs; a change of the contract is a change here. Nothing: tests/e2e/test_authorisation.py says why.
NEEDED = {
    "CreateAgent": "agents:admin",
    "ListAgents": "agents:read",
    "GetAgent": "agents:read",
    "WhoAmI": "",
    "UpdateAgent": "agents:admin",
    "ArchiveAgent": "agents:admin",
    "SetAgentStatus": "",
    "AddAgentUsage": "",
    "CreateToken": "agents:admin",
    "ListTokens": "agents:admin",
    "RotateToken": "agents:admin",
    "RevokeToken": "agents:admin",
    "CreateCredentials": "agents:admin",
    "ObtainToken": "",
    "RefreshToken": "",
    "SurrenderToken": "",
    "GetOrchestrator": "agents:read",
    "ResetContext": "agents:admin",
    "EnsureOrchestrator": "agents:admin",
    "CreateSession": "sessions:write",
    "ListSessions": "sessions:read",
    "ListActiveSessions": "sessions:read",
    "GetSession": "sessions:read",
    "UpdateSession": "sessions:write",
    "SendSessionEvent": "sessions:write",
    "HeartbeatSession": "sessions:write",
    "ListSessionTransitions": "sessions:read",
    "RecordPrompt": "logs:write",
    "GetPrompt": "logs:read",
    "ListPrompts": "logs:read",
    "AppendAgentLogs": "logs:write",
    "ListAgentLogs": "logs:read",
    "TailAgentLogs": "logs:read",
    "AppendSystemLogs": "logs:write",
    "ListSystemLogs": "logs:read",
    "SendChatMessage": "logs:write",
    "ListChatMessages": "logs:read",
    "LoadChat": "logs:read",
    "ListFeed": "logs:read",
    "WatchFeed": "logs:read",
    "GetEvents": "logs:read",
    "ListAuditEntries": "audit:read",
    "ExportAuditEntries": "audit:read",
    "VerifyAudit": "audit:read",
    "IngestAudit": "logs:write",
    "RecordUsage": "",
    "ListUsage": "agents:read",
    "SummarizeUsage": "agents:read",
    "CreateBudget": "agents:admin",
    "ListBudgets": "agents:read",
    "GetBudget": "agents:read",
    "UpdateBudget": "agents:admin",
    "DeleteBudget": "agents:admin",
}
FILES = (
    messages,
    credential_service_pb2,
    orchestrator_service_pb2,
    session_service_pb2,
    prompt_service_pb2,
    log_service_pb2,
    chat_service_pb2,
    feed_service_pb2,
    audit_service_pb2,
    usage_service_pb2,
    budget_service_pb2,
)


def test_each_method_names_its_scope() -> None:
    methods = [
        one for file in FILES for service in file.DESCRIPTOR.services_by_name.values() for one in service.methods
    ]
    assert {one.name: one.GetOptions().Extensions[annotations_pb2.policy].scope for one in methods} == NEEDED


async def test_an_access_token_ends_while_it_is_in_use(sessions: Sessions) -> None:
    token = sessions.signer.token(["admin"], expires_at=sessions.clock.now() + timedelta(seconds=60))
    caller = AgentServiceStub(sessions.channel(token))
    created = await caller.CreateAgent(messages.CreateAgentRequest(name="scribe", scopes=["tasks:read"]))
    sessions.clock.advance(seconds=60)
    with pytest.raises(Unauthenticated):
        await caller.GetAgent(messages.GetAgentRequest(agent_id=created.agent.id))
