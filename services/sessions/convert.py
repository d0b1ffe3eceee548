"""Messages from models, and plain values from messages."""

from datetime import timedelta

from baton.api.v1 import auth_service_pb2
from baton.sessions.v1 import agent_pb2, agent_service_pb2

from services.chassis.timestamps import to_timestamp
from services.sessions.models import Agent, Grant, MintedToken, Token


def lifetime(request: agent_service_pb2.CreateTokenRequest, default: timedelta) -> timedelta:
    """How long the new token is to live."""
    if request.HasField("expires_in_seconds"):
        return timedelta(seconds=request.expires_in_seconds)
    return default


def to_agent(agent: Agent) -> agent_pb2.Agent:
    return agent_pb2.Agent(
        id=agent.id,
        name=agent.name,
        scopes=agent.scopes,
        created_at=to_timestamp(agent.created_at),
        updated_at=to_timestamp(agent.updated_at),
        role=agent.role,
    )


def to_created_token(minted: MintedToken) -> agent_service_pb2.CreateTokenResponse:
    return agent_service_pb2.CreateTokenResponse(
        id=minted.token.id,
        token=minted.text,
        scopes=minted.token.scopes,
        expires_at=to_timestamp(minted.token.expires_at),
    )


def to_revoked_token(token: Token) -> agent_service_pb2.RevokeTokenResponse:
    assert token.revoked_at is not None
    return agent_service_pb2.RevokeTokenResponse(id=token.id, revoked_at=to_timestamp(token.revoked_at))


def to_exchanged_token(grant: Grant, access_token: str) -> auth_service_pb2.ExchangeTokenResponse:
    return auth_service_pb2.ExchangeTokenResponse(access_token=access_token, expires_at=to_timestamp(grant.expires_at))
