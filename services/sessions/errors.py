"""What can go wrong with agents and tokens, one class for each fact."""

from collections.abc import Iterable, Mapping

from services.chassis.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Violation,
)


class AgentNotFound(NotFound):
    """No agent has this id."""

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"agent {agent_id} not found", reason="AGENT_NOT_FOUND", metadata={"agent_id": agent_id})


class AgentNameTaken(AlreadyExists):
    """Another agent has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"an agent named {name!r} exists already: choose another name",
            reason="AGENT_NAME_TAKEN",
            metadata={"name": name},
        )


class TokenNotFound(NotFound):
    """The agent has no token with this id."""

    def __init__(self, agent_id: str, token_id: str) -> None:
        super().__init__(
            f"agent {agent_id} has no token {token_id}",
            reason="TOKEN_NOT_FOUND",
            metadata={"agent_id": agent_id, "token_id": token_id},
        )


class ScopesNotHeld(PermissionDenied):
    """Somebody would be given scopes that the giver, or the receiver, does not hold."""

    def __init__(self, scopes: Iterable[str], holder: str) -> None:
        names = ", ".join(scopes)
        super().__init__(
            f"{holder} does not hold {names}: only scopes that are held can be passed on",
            reason="SCOPES_NOT_HELD",
            metadata={"scopes": names},
        )


class TokenInvalid(Unauthenticated):
    """A token that opens nothing. The answer does not tell malformed from unknown, expired or revoked."""

    def __init__(self) -> None:
        super().__init__("the token is not valid: use one that is neither expired nor revoked", reason="TOKEN_INVALID")


def scopes_kept(kept: Mapping[int, str], passed_on: Iterable[str]) -> InvalidArgument:
    """The error for scopes that nobody uses for somebody else, given by their place in the request."""
    allowed = ", ".join(sorted(passed_on))
    return InvalidArgument.of(
        Violation(f"scopes[{index}]", f"nobody acts for another agent with {scope!r}: only with {allowed}")
        for index, scope in kept.items()
    )


def unknown_scopes(strangers: Mapping[int, str], known: Iterable[str]) -> InvalidArgument:
    """The error for scopes that do not exist, given by their place in the request."""
    allowed = ", ".join(sorted(known))
    return InvalidArgument.of(
        Violation(f"scopes[{index}]", f"{scope!r} is not a scope: use one of {allowed}, or tool:<name>")
        for index, scope in strangers.items()
    )
