"""What can go wrong with agents, tokens and sessions, one class for each fact."""

from collections.abc import Iterable, Mapping

from services.chassis.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
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
    """Another agent, which is not archived, has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"an agent named {name!r} exists already: choose another name",
            reason="AGENT_NAME_TAKEN",
            metadata={"name": name},
        )


class OrchestratorNotFound(NotFound):
    """There is no orchestrator, or none any more."""

    def __init__(self) -> None:
        super().__init__("there is no orchestrator: create it with POST /orchestrator", reason="ORCHESTRATOR_NOT_FOUND")


class PromptNotFound(NotFound):
    """No prompt has this id, or none any more."""

    def __init__(self, prompt_id: str) -> None:
        super().__init__(f"prompt {prompt_id} not found", reason="PROMPT_NOT_FOUND", metadata={"prompt_id": prompt_id})


class BudgetNotFound(NotFound):
    """No budget has this id, or none any more."""

    def __init__(self, budget_id: str) -> None:
        super().__init__(f"budget {budget_id} not found", reason="BUDGET_NOT_FOUND", metadata={"budget_id": budget_id})


class BudgetExists(AlreadyExists):
    """The agent or session has such a budget already."""

    def __init__(self, metric: str, period: str) -> None:
        super().__init__(
            f"there is a budget of {metric} for the period {period} already: change its limits",
            reason="BUDGET_EXISTS",
            metadata={"metric": metric, "period": period},
        )


class AgentArchived(FailedPrecondition):
    """The agent is archived, and nothing about it changes any more."""

    def __init__(self, agent_id: str) -> None:
        super().__init__(
            f"agent {agent_id} is archived: create another one, which may have its name",
            reason="AGENT_ARCHIVED",
            metadata={"agent_id": agent_id},
        )


class AgentStatusIllegal(FailedPrecondition):
    """This status cannot follow the one that the agent has."""

    def __init__(self, agent_id: str, old: str, new: str, allowed: Iterable[str]) -> None:
        names = ", ".join(allowed)
        super().__init__(
            f"agent {agent_id} is {old} and cannot become {new}: what can follow is {names}",
            reason="AGENT_STATUS_ILLEGAL",
            metadata={"agent_id": agent_id, "from": old, "to": new, "allowed": names},
        )


class AgentVersionMismatch(Aborted):
    """Somebody has changed the agent since the caller read it."""

    def __init__(self, agent_id: str, given: int, present: int) -> None:
        super().__init__(
            f"agent {agent_id} has version {present}, not {given}: read it again and decide anew",
            reason="AGENT_VERSION_MISMATCH",
            metadata={"agent_id": agent_id, "version": str(present)},
        )


class SessionNotFound(NotFound):
    """No session has this id."""

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"session {session_id} not found", reason="SESSION_NOT_FOUND", metadata={"session_id": session_id}
        )


class SessionOfAnotherAgent(PermissionDenied):
    """The session is not the caller's."""

    def __init__(self, session_id: str, agent_id: str) -> None:
        super().__init__(
            f"session {session_id} is that of agent {agent_id}: only it, and who holds 'admin', may change it",
            reason="SESSION_OF_ANOTHER_AGENT",
            metadata={"session_id": session_id, "agent_id": agent_id},
        )


class SessionVersionMismatch(Aborted):
    """Somebody has changed the session since the caller read it."""

    def __init__(self, session_id: str, given: int, present: int) -> None:
        super().__init__(
            f"session {session_id} has version {present}, not {given}: read it again and decide anew",
            reason="SESSION_VERSION_MISMATCH",
            metadata={"session_id": session_id, "version": str(present)},
        )


class SessionTransitionIllegal(FailedPrecondition):
    """The session cannot get where it is to go from where it is."""

    def __init__(self, session_id: str, old: str, new: str, allowed: Iterable[str]) -> None:
        names = ", ".join(allowed)
        can = f"what can follow is {names}" if names else f"{old} is final, and nothing can follow"
        super().__init__(
            f"session {session_id} is {old} and cannot become {new}: {can}",
            reason="SESSION_TRANSITION_ILLEGAL",
            metadata={"session_id": session_id, "from": old, "to": new, "allowed": names},
        )


class SessionEventIllegal(FailedPrecondition):
    """This cannot happen to the session as it is."""

    def __init__(self, session_id: str, event: str, old: str, new: str, allowed: Iterable[str]) -> None:
        names = ", ".join(allowed)
        can = f"what can happen is {names}" if names else f"{old} is final, and nothing can happen"
        super().__init__(
            f"session {session_id} is {old} and cannot become {new} by '{event}': {can}",
            reason="SESSION_TRANSITION_ILLEGAL",
            metadata={"session_id": session_id, "event": event, "from": old, "to": new, "allowed": names},
        )


class SessionEnded(FailedPrecondition):
    """The session has ended, or its time is over."""

    def __init__(self, session_id: str, status: str) -> None:
        super().__init__(
            f"session {session_id} is {status}, which is final: begin another one",
            reason="SESSION_ENDED",
            metadata={"session_id": session_id, "status": status},
        )


class TokenNotFound(NotFound):
    """The agent has no token with this id."""

    def __init__(self, agent_id: str, token_id: str) -> None:
        super().__init__(
            f"agent {agent_id} has no token {token_id}",
            reason="TOKEN_NOT_FOUND",
            metadata={"agent_id": agent_id, "token_id": token_id},
        )


class TokenNotRotatable(FailedPrecondition):
    """The token cannot be rotated; `why` says what it is."""

    def __init__(self, token_id: str, why: str) -> None:
        super().__init__(
            f"token {token_id} {why}: mint a new one", reason="TOKEN_NOT_ROTATABLE", metadata={"token_id": token_id}
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


class TokenReused(TokenInvalid):
    """A refresh token came again that somebody has used before: all that came of it must end.

    Its caller is told what everybody is told.
    """

    def __init__(self, family_id: str) -> None:
        super().__init__()
        self.family_id = family_id


class SecretInvalid(Unauthenticated):
    """What obtains no tokens. The answer does not tell an unknown agent from an archived one or a wrong secret."""

    def __init__(self) -> None:
        super().__init__(
            "the agent and its secret are not valid: use the secret that POST /agents/{agent_id}/credentials gave last",
            reason="SECRET_INVALID",
        )


def unknown_scopes(strangers: Mapping[int, str], known: Iterable[str]) -> InvalidArgument:
    """The error for scopes that do not exist, given by their place in the request."""
    allowed = ", ".join(sorted(known))
    return InvalidArgument.of(
        Violation(f"scopes[{index}]", f"{scope!r} is not a scope: use one of {allowed}, or tool:<name>")
        for index, scope in strangers.items()
    )
