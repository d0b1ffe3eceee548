"""Agents."""

from typing import Any, Literal, get_args

from baton.sessions.v1 import agent_pb2, orchestrator_service_pb2
from baton.sessions.v1 import agent_service_pb2 as pb

from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import stored_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import to_timestamp
from services.sessions.convert.enums import from_enum, to_enum
from services.sessions.models.agent import Agent, AgentFilter, AgentStatus, NewAgent
from services.sessions.models.usage import Amounts, NewCall

DEFAULT_ORCHESTRATOR_NAME = "orchestrator"
_Text = Literal["role", "model", "system_prompt", "working_dir", "git_worktree"]
_TEXTS: tuple[_Text, ...] = get_args(_Text)
_Optional = Literal["webhook_url", "session_id", "orchestrator_agent_id"]
_OPTIONALS: tuple[_Optional, ...] = get_args(_Optional)
_CHANGEABLE = ("name", "scopes", *_TEXTS, *_OPTIONALS, "metadata", "status")
_REQUIRED = ("name", "scopes", "status")
# Its value is what the change needs, not what is changed.
_NOT_CHANGED = "version"


def new_agent(request: pb.CreateAgentRequest) -> NewAgent:
    """What the caller wants to make."""
    return NewAgent(
        name=request.name,
        scopes=tuple(request.scopes),
        role=request.role,
        model=request.model,
        system_prompt=request.system_prompt,
        webhook_url=request.webhook_url or None,
        working_dir=request.working_dir,
        git_worktree=request.git_worktree,
        session_id=request.session_id or None,
        orchestrator_agent_id=stored_id(request.orchestrator_agent_id) or None,
        metadata=from_struct(request.metadata),
    )


def new_orchestrator(request: orchestrator_service_pb2.EnsureOrchestratorRequest) -> NewAgent:
    """What the orchestrator is to be if there is none."""
    return NewAgent(
        name=request.name or DEFAULT_ORCHESTRATOR_NAME,
        scopes=tuple(request.scopes),
        model=request.model,
        system_prompt=request.system_prompt,
        working_dir=request.working_dir,
        metadata=from_struct(request.metadata),
    )


def agent_changes(request: pb.UpdateAgentRequest) -> dict[str, Any]:
    """What the caller wants to be different; metadata is None when all of it is to go. Raises InvalidArgument."""
    given = {field.name for field, _ in request.ListFields()}
    named = [name for name in dict.fromkeys(request.update_mask.paths) if name != _NOT_CHANGED]
    faults = [Violation("update_mask", _unchangeable(name)) for name in named if name not in _CHANGEABLE]
    faults += [Violation(name, "cannot be cleared") for name in named if name in _REQUIRED and name not in given]
    if faults:
        raise InvalidArgument.of(faults)
    wanted = named if request.update_mask.paths else [name for name in _CHANGEABLE if name in given]
    return {name: _value(request, name) if name in given else _cleared(name) for name in wanted}


def expected_version(request: pb.UpdateAgentRequest) -> int | None:
    """The version that is to be changed; None for whichever it is."""
    return request.version if request.HasField("version") else None


def agent_status(request: pb.SetAgentStatusRequest) -> AgentStatus:
    """What the agent is at."""
    return from_enum(AgentStatus, agent_pb2.AgentStatus, request.status)


def usage(request: pb.AddAgentUsageRequest) -> NewCall:
    """What was used, as one call."""
    amounts = Amounts(
        input_tokens=request.input_tokens, output_tokens=request.output_tokens, cost_microusd=request.cost_microusd
    )
    return NewCall(agent_id=stored_id(request.agent_id), amounts=amounts)


def agent_filter(request: pb.ListAgentsRequest) -> AgentFilter:
    """Which agents the caller wants to see."""
    return AgentFilter(request.name_filter, request.scope_filter, request.include_archived)


def agent_message(agent: Agent) -> agent_pb2.Agent:
    """An agent as it is answered."""
    return agent_pb2.Agent(
        id=agent.id,
        name=agent.name,
        scopes=agent.scopes,
        created_at=to_timestamp(agent.created_at),
        updated_at=to_timestamp(agent.updated_at),
        role=agent.role,
        model=agent.model,
        system_prompt=agent.system_prompt,
        webhook_url=agent.webhook_url,
        status=to_enum(agent.status, agent_pb2.AgentStatus),
        working_dir=agent.working_dir,
        git_worktree=agent.git_worktree,
        session_id=agent.session_id,
        orchestrator_agent_id=agent.orchestrator_agent_id,
        input_tokens=agent.input_tokens,
        output_tokens=agent.output_tokens,
        cost_microusd=agent.cost_microusd,
        metadata=to_struct(agent.metadata),
        archived=agent.is_archived,
        archived_at=to_timestamp(agent.archived_at),
        version=agent.version,
        is_orchestrator=agent.is_orchestrator,
    )


def archived_message(agent: Agent) -> pb.ArchiveAgentResponse:
    """What became of an agent that was deleted."""
    return pb.ArchiveAgentResponse(
        success=True,
        message=f"agent {agent.name!r} is archived",
        details=pb.ArchiveAgentDetails(
            agent_id=agent.id, agent_name=agent.name, archived_at=to_timestamp(agent.archived_at)
        ),
    )


def _value(request: pb.UpdateAgentRequest, name: str) -> Any:
    value = getattr(request, name)
    match name:
        case "scopes":
            return tuple(value)
        case "metadata":
            return from_struct(value)
        case "status":
            return from_enum(AgentStatus, agent_pb2.AgentStatus, value)
        case "orchestrator_agent_id":
            return stored_id(value)
    return (value or None) if name in _OPTIONALS else value


def _cleared(name: str) -> str | None:
    return "" if name in _TEXTS else None


def _unchangeable(name: str) -> str:
    return f"names {name!r}, which cannot be changed: use some of {', '.join(_CHANGEABLE)}"
