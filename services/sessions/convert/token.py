"""Tokens, and what is obtained with secrets."""

from datetime import datetime, timedelta

from baton.api.v1 import auth_service_pb2
from baton.sessions.v1 import agent_service_pb2 as pb
from baton.sessions.v1 import credential_service_pb2, token_pb2

from services.chassis.timestamps import to_timestamp
from services.sessions.convert.enums import from_enum, to_enum
from services.sessions.models.token import Grant, MintedToken, ObtainedTokens, Rotation, Token, TokenFilter, TokenKind

_BEARER = "bearer"


def lifetime(request: pb.CreateTokenRequest | pb.RotateTokenRequest, default: timedelta) -> timedelta:
    """How long the new token is to live."""
    if request.HasField("expires_in_seconds"):
        return timedelta(seconds=request.expires_in_seconds)
    return default


def overlap(request: pb.RotateTokenRequest, default: timedelta) -> timedelta:
    """How long the token goes on beside the new one."""
    if request.HasField("overlap_seconds"):
        return timedelta(seconds=request.overlap_seconds)
    return default


def token_filter(request: pb.ListTokensRequest, now: datetime) -> TokenFilter:
    """Which tokens the caller wants to see."""
    kind = from_enum(TokenKind, token_pb2.TokenKind, request.kind) if request.HasField("kind") else None
    return TokenFilter(kind, now if request.live_only else None)


def token_message(token: Token) -> token_pb2.Token:
    """A token as it is listed."""
    return token_pb2.Token(
        id=token.id,
        agent_id=token.agent_id,
        kind=to_enum(token.kind, token_pb2.TokenKind),
        key_id=token.key_id,
        scopes=token.scopes,
        created_at=to_timestamp(token.created_at),
        expires_at=to_timestamp(token.expires_at),
        revoked_at=to_timestamp(token.revoked_at),
        last_used_at=to_timestamp(token.last_used_at),
        replaced_by=token.replaced_by,
        created_by=token.created_by,
    )


def created_message(minted: MintedToken) -> pb.CreateTokenResponse:
    """A token that was minted, with its text."""
    return pb.CreateTokenResponse(
        id=minted.token.id,
        token=minted.text,
        scopes=minted.token.scopes,
        expires_at=to_timestamp(minted.token.expires_at),
    )


def rotated_message(rotation: Rotation) -> pb.RotateTokenResponse:
    """A token that was minted for another one, with its text."""
    token, previous = rotation.minted.token, rotation.previous
    return pb.RotateTokenResponse(
        id=token.id,
        token=rotation.minted.text,
        scopes=token.scopes,
        expires_at=to_timestamp(token.expires_at),
        previous_id=previous.id,
        previous_expires_at=to_timestamp(previous.expires_at),
    )


def revoked_message(token: Token) -> pb.RevokeTokenResponse:
    """A token that was revoked."""
    assert token.revoked_at is not None
    return pb.RevokeTokenResponse(id=token.id, revoked_at=to_timestamp(token.revoked_at))


def exchanged_message(grant: Grant, access_token: str) -> auth_service_pb2.ExchangeTokenResponse:
    """An access token for a while."""
    return auth_service_pb2.ExchangeTokenResponse(access_token=access_token, expires_at=to_timestamp(grant.expires_at))


def obtained_message(obtained: ObtainedTokens) -> credential_service_pb2.ObtainTokenResponse:
    """What an agent got for its secret."""
    token = obtained.access.token
    return credential_service_pb2.ObtainTokenResponse(
        access_token=obtained.access.text,
        refresh_token=obtained.refresh.text,
        token_type=_BEARER,
        expires_in=int((token.expires_at - token.created_at).total_seconds()),
        scope=" ".join(token.scopes),
    )


def refreshed_message(obtained: ObtainedTokens) -> credential_service_pb2.RefreshTokenResponse:
    """What an agent got for its refresh token."""
    first = obtained_message(obtained)
    return credential_service_pb2.RefreshTokenResponse(
        access_token=first.access_token,
        refresh_token=first.refresh_token,
        token_type=first.token_type,
        expires_in=first.expires_in,
        scope=first.scope,
    )
