"""The scopes there are, and who holds which."""

import re
from collections.abc import Collection, Iterable

from services.sessions.errors import scopes_kept, unknown_scopes

ADMIN = "admin"
"""Holds every other scope."""

KNOWN = frozenset(
    {
        ADMIN,
        "agents:act",
        "agents:admin",
        "agents:read",
        "approvals:decide",
        "approvals:read",
        "approvals:request",
        "audit:read",
        "events:publish",
        "events:read",
        "logs:read",
        "logs:write",
        "messages:deliver",
        "metrics:read",
        "runs:read",
        "runs:report",
        "runs:work",
        "sessions:read",
        "sessions:write",
        "tasks:read",
        "tasks:write",
        "tools:admin",
        "tools:read",
        "webhooks:admin",
        "workflows:read",
        "workflows:write",
    }
)


PASSED_ON = frozenset({"events:publish", "logs:write", "tasks:write", "workflows:write"})
"""What a worker may do in the name of a task's owner: never all, whatever the owner holds."""

# What tool servers ask of the owners of tasks. Whoever registers a server names them, so there is no list.
_OF_TOOLS = re.compile(r"tool:[A-Za-z0-9._-]{1,95}")


def check_known(scopes: Iterable[str]) -> None:
    """Raises InvalidArgument with one violation for each scope that does not exist.

    Of those that tool servers ask for, `tool:<name>`, there is every one.
    """
    strangers = {
        index: scope for index, scope in enumerate(scopes) if scope not in KNOWN and not _OF_TOOLS.fullmatch(scope)
    }
    if strangers:
        raise unknown_scopes(strangers, KNOWN)


def check_passed_on(scopes: Iterable[str]) -> None:
    """Raises InvalidArgument with one violation for each scope with which nobody acts for somebody else."""
    kept = {index: scope for index, scope in enumerate(scopes) if scope not in PASSED_ON}
    if kept:
        raise scopes_kept(kept, PASSED_ON)


def missing(wanted: Iterable[str], holder: Collection[str]) -> list[str]:
    """Those of `wanted` that `holder` does not hold, sorted."""
    return [] if ADMIN in holder else sorted(set(wanted) - set(holder))


def held_by_both(one: Collection[str], other: Collection[str]) -> tuple[str, ...]:
    """What both may do, sorted."""
    if ADMIN in one:
        return tuple(sorted(other))
    if ADMIN in other:
        return tuple(sorted(one))
    return tuple(sorted(set(one) & set(other)))
