"""The call that is being served: who makes it, which method it is, how long it may take."""

import math
import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from services.chassis.errors import Internal

# Of a call that goes on and on, what is left of its time for its end.
_END_SECONDS = 1.0


@dataclass(frozen=True)
class Caller:
    """Somebody whose credential was checked."""

    agent_id: str
    scopes: frozenset[str] = field(default_factory=frozenset)
    token_id: str = ""
    role: str = ""
    """What the agent works as; empty for none."""
    run_id: str = ""
    """The run in whose course a worker acts for the agent; empty for none."""

    def holds(self, scope: str) -> bool:
        """Whether the caller may do what `scope` allows; `admin` may do everything."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass
class Call:
    """One RPC in progress."""

    method: str
    """`/package.Service/Method`."""
    expires_at: float | None = None
    """The deadline on the monotonic clock."""
    caller: Caller | None = None
    access_ends_at: float = math.inf
    """When the caller's access token ends, on the monotonic clock. What was begun before may be finished."""
    audit_action: str = ""
    """What the audit calls the method; empty when it leaves no entry."""
    replayed: bool = False
    """Whether the answer is that of an earlier request with the same key."""


current: ContextVar[Call | None] = ContextVar("baton_call", default=None)


def caller() -> Caller:
    """Who makes the current call. Only for methods that need a credential: elsewhere it is an error."""
    call = current.get()
    if call is None or call.caller is None:
        raise Internal("no caller in this context")
    return call.caller


def identify(agent_id: str) -> None:
    """Says who makes the current call, for methods whose request itself carries the credential, once it is proven."""
    call = current.get()
    assert call is not None, "nobody calls"
    call.caller = Caller(agent_id)


def is_replay() -> bool:
    """Whether the current call is answered as an earlier one with the same key was."""
    call = current.get()
    return call is not None and call.replayed


def seconds_left(at_most: float = math.inf) -> float:
    """How long the current call may still take, and never more than `at_most`. Never negative."""
    call = current.get()
    if call is None or call.expires_at is None:
        return at_most
    return max(0.0, min(at_most, call.expires_at - time.monotonic()))


def lasting_seconds_left() -> float:
    """How long the current call, which would go on and on, may do so. Never negative.

    It ends a little before its caller's time does, and with the caller's access token: whether it may begin anew is
    judged by the next one.
    """
    call = current.get()
    access_left = math.inf if call is None else call.access_ends_at - time.monotonic()
    return max(0.0, min(access_left, seconds_left() - _END_SECONDS))
