"""Who may call what."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from baton.api.v1 import annotations_pb2
from baton.sessions.v1 import agent_service_pb2 as messages
from baton.sessions.v1 import chat_service_pb2 as chat
from baton.sessions.v1 import credential_service_pb2 as credentials
from baton.sessions.v1 import feed_service_pb2 as feed
from baton.sessions.v1 import log_service_pb2 as logs
from baton.sessions.v1 import orchestrator_service_pb2 as orchestration
from baton.sessions.v1 import prompt_service_pb2 as prompts
from baton.sessions.v1 import session_service_pb2 as lifecycle
from baton.sessions.v1.agent_service_pb2_grpc import AgentServiceStub
from baton.sessions.v1.chat_service_pb2_grpc import ChatServiceStub
from baton.sessions.v1.credential_service_pb2_grpc import CredentialServiceStub
from baton.sessions.v1.feed_service_pb2_grpc import FeedServiceStub
from baton.sessions.v1.log_service_pb2_grpc import LogServiceStub
from baton.sessions.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from baton.sessions.v1.prompt_service_pb2_grpc import PromptServiceStub
from baton.sessions.v1.session_service_pb2_grpc import SessionServiceStub
from grpc.aio import Channel
from joserfc.jwk import OKPKey

from services.chassis.errors import PermissionDenied, Unauthenticated
from services.chassis.ids import new_id
from services.sessions.scopes import ADMIN, KNOWN
from tests.integration.sessions.running import Sessions
from tests.support.grpc import Signer

ID = new_id()
ENTRY = logs.NewAgentLog(event_category="EVENT_CATEGORY_HOOK", event_type="Stop")
LINE = logs.NewSystemLog(level="LOG_LEVEL_INFO", message="started")
# Each method, a good request to it, and the scope it asks for.
METHODS = [
    ("CreateAgent", messages.CreateAgentRequest(name="scribe", scopes=["tasks:read"]), "agents:admin"),
    ("ListAgents", messages.ListAgentsRequest(), "agents:read"),
    ("GetAgent", messages.GetAgentRequest(agent_id=ID), "agents:read"),
    ("UpdateAgent", messages.UpdateAgentRequest(agent_id=ID, name="other"), "agents:admin"),
    ("ArchiveAgent", messages.ArchiveAgentRequest(agent_id=ID), "agents:admin"),
    # These two an agent may also call about itself.
    ("SetAgentStatus", messages.SetAgentStatusRequest(agent_id=ID, status="AGENT_STATUS_IDLE"), "agents:admin"),
    ("AddAgentUsage", messages.AddAgentUsageRequest(agent_id=ID), "agents:admin"),
    ("CreateToken", messages.CreateTokenRequest(agent_id=ID), "agents:admin"),
    ("ListTokens", messages.ListTokensRequest(agent_id=ID), "agents:admin"),
    ("RotateToken", messages.RotateTokenRequest(agent_id=ID, token_id=ID), "agents:admin"),
    ("RevokeToken", messages.RevokeTokenRequest(agent_id=ID, token_id=ID), "agents:admin"),
    ("CreateCredentials", credentials.CreateCredentialsRequest(agent_id=ID), "agents:admin"),
    ("GetOrchestrator", orchestration.GetOrchestratorRequest(), "agents:read"),
    ("ResetContext", orchestration.ResetContextRequest(), "agents:admin"),
    ("EnsureOrchestrator", orchestration.EnsureOrchestratorRequest(scopes=["tasks:read"]), "agents:admin"),
    ("AppendAgentLogs", logs.AppendAgentLogsRequest(agent_id=ID, entries=[ENTRY]), "logs:write"),
    ("ListAgentLogs", logs.ListAgentLogsRequest(agent_id=ID), "logs:read"),
    ("TailAgentLogs", logs.TailAgentLogsRequest(agent_id=ID), "logs:read"),
    ("AppendSystemLogs", logs.AppendSystemLogsRequest(entries=[LINE]), "logs:write"),
    ("ListSystemLogs", logs.ListSystemLogsRequest(), "logs:read"),
    ("RecordPrompt", prompts.RecordPromptRequest(author=1, prompt_text="do it"), "logs:write"),
    ("GetPrompt", prompts.GetPromptRequest(prompt_id=ID), "logs:read"),
    ("ListPrompts", prompts.ListPromptsRequest(), "logs:read"),
    ("SendChatMessage", chat.SendChatMessageRequest(message="hello"), "logs:write"),
    ("ListChatMessages", chat.ListChatMessagesRequest(), "logs:read"),
    ("LoadChat", chat.LoadChatRequest(), "logs:read"),
    ("ListFeed", feed.ListFeedRequest(), "logs:read"),
    ("WatchFeed", feed.WatchFeedRequest(), "logs:read"),
    ("GetEvents", feed.GetEventsRequest(), "logs:read"),
    ("CreateSession", lifecycle.CreateSessionRequest(agent_role="planner"), "sessions:write"),
    ("ListSessions", lifecycle.ListSessionsRequest(), "sessions:read"),
    ("ListActiveSessions", lifecycle.ListActiveSessionsRequest(), "sessions:read"),
    ("GetSession", lifecycle.GetSessionRequest(session_id=ID), "sessions:read"),
    ("UpdateSession", lifecycle.UpdateSessionRequest(session_id=ID), "sessions:write"),
    (
        "SendSessionEvent",
        lifecycle.SendSessionEventRequest(session_id=ID, event="SESSION_EVENT_FAIL"),
        "sessions:write",
    ),
    ("HeartbeatSession", lifecycle.HeartbeatSessionRequest(session_id=ID), "sessions:write"),
    ("ListSessionTransitions", lifecycle.ListSessionTransitionsRequest(session_id=ID), "sessions:read"),
]
PUBLIC = {"ObtainToken", "RefreshToken", "SurrenderToken"}
SERVICES = tuple(
    file.DESCRIPTOR for file in (messages, credentials, orchestration, logs, prompts, chat, feed, lifecycle)
)
STUBS = (
    AgentServiceStub,
    CredentialServiceStub,
    OrchestratorServiceStub,
    LogServiceStub,
    PromptServiceStub,
    ChatServiceStub,
    FeedServiceStub,
    SessionServiceStub,
)
every_method = pytest.mark.parametrize(("method", "request_message", "scope"), METHODS)


def method_of(channel: Channel, method: str) -> Any:
    """A method of whichever service has it; one that streams is read to its end."""
    call = next(getattr(stub(channel), method) for stub in STUBS if hasattr(stub(channel), method))
    if not method.startswith("Watch"):
        return call

    async def read(request: Any) -> list[Any]:
        return [message async for message in call(request)]

    return read


def test_every_method_is_in_the_list_or_public() -> None:
    services = [service for file in SERVICES for service in file.services_by_name.values()]
    policies = {
        method.name: method.GetOptions().Extensions[annotations_pb2.policy]
        for service in services
        for method in service.methods
    }
    assert set(policies) == {name for name, _, _ in METHODS} | PUBLIC
    open_to_all = {name for name, policy in policies.items() if not policy.scope}
    assert open_to_all == PUBLIC | {"SetAgentStatus", "AddAgentUsage"}
    public = {name for name, one in policies.items() if one.access == annotations_pb2.ACCESS_CREDENTIAL_IN_REQUEST}
    assert public == PUBLIC


@every_method
async def test_every_other_scope_together_does_not_do(
    sessions: Sessions, method: str, request_message: Any, scope: str
) -> None:
    channel = sessions.channel(sessions.signer.token(KNOWN - {ADMIN, scope}))
    with pytest.raises(PermissionDenied, match=scope) as refused:
        await method_of(channel, method)(request_message)
    assert refused.value.reason == "SCOPE_MISSING"
    assert refused.value.metadata == {"scope": scope}


@every_method
async def test_nobody_calls_without_a_token(sessions: Sessions, method: str, request_message: Any, scope: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await method_of(sessions.channel(), method)(request_message)
    assert refused.value.reason == "TOKEN_MISSING"


BAD_TOKENS: dict[str, Callable[[Sessions], str]] = {
    "garbage": lambda sessions: "garbage",
    "empty": lambda sessions: "",
    "signed by somebody else": lambda sessions: Signer(OKPKey.generate_key("Ed25519", auto_kid=True)).token(["admin"]),
    "expired": lambda sessions: sessions.signer.token(["admin"], expires_at=sessions.clock.now()),
    "tampered with": lambda sessions: sessions.signer.token(["admin"])[:-10] + "A" * 10,
}


@pytest.mark.parametrize("bad", BAD_TOKENS)
async def test_a_bad_access_token_opens_nothing(sessions: Sessions, bad: str) -> None:
    caller = AgentServiceStub(sessions.channel(BAD_TOKENS[bad](sessions)))
    with pytest.raises(Unauthenticated) as refused:
        await caller.GetAgent(messages.GetAgentRequest(agent_id=ID))
    assert refused.value.reason == "TOKEN_INVALID"


async def test_an_access_token_ends_while_it_is_in_use(sessions: Sessions) -> None:
    token = sessions.signer.token(["admin"], expires_at=sessions.clock.now() + timedelta(seconds=60))
    caller = AgentServiceStub(sessions.channel(token))
    created = await caller.CreateAgent(messages.CreateAgentRequest(name="scribe", scopes=["tasks:read"]))
    sessions.clock.advance(seconds=60)
    with pytest.raises(Unauthenticated):
        await caller.GetAgent(messages.GetAgentRequest(agent_id=created.agent.id))
