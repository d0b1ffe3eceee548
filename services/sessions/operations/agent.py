"""Making, changing and archiving agents."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from services.chassis import outbox, structs
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.egress.guard import Guard
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import new_id
from services.sessions import scopes as scope_rules
from services.sessions.errors import (
    AgentArchived,
    AgentNameTaken,
    AgentNotFound,
    AgentStatusIllegal,
    AgentVersionMismatch,
)
from services.sessions.models.agent import SYSTEM_ID, Agent, AgentStatus, NewAgent, merged
from services.sessions.operations import agent_faults
from services.sessions.operations.agent_audit import agent_told, audit, audit_change
from services.sessions.operations.holding import check_held, check_speaks_for
from services.sessions.store import agent as store
from services.sessions.store import secret as secret_store
from services.sessions.store import tables
from services.sessions.store import token as token_store

_THE_CALLER = "the caller"
_BOOTSTRAP = "bootstrap"
_BOUNDED_BY_ROLE = "runs:work"
"""With another role, or none, this scope opens other runs: who changes the one must hold the other."""


def create_agent(
    connection: Connection, new: NewAgent, guard: Guard, caller: Caller, clock: Clock, *, request_id: str = ""
) -> Agent:
    """Stores an agent with a name of its own and scopes that the caller holds.

    Raises InvalidArgument, ScopesNotHeld or AgentNameTaken.
    """
    agent = wanted_agent(connection, new, guard, caller, clock)
    if not store.insert_unless_taken(connection, agent):
        raise AgentNameTaken(new.name)
    audit_creation(connection, agent, caller.agent_id, clock, request_id=request_id)
    _tell_webhook(connection, None, agent, clock)
    return agent


def wanted_agent(connection: Connection, new: NewAgent, guard: Guard, caller: Caller, clock: Clock) -> Agent:
    """The agent that a caller wants to make, checked and not stored. Raises InvalidArgument or ScopesNotHeld."""
    metadata = merged({}, new.metadata)
    scope_rules.check_known(new.scopes)
    agent_faults.check(
        connection,
        guard,
        webhook_url=new.webhook_url,
        metadata=metadata,
        orchestrator_agent_id=new.orchestrator_agent_id,
    )
    check_held(new.scopes, caller.scopes, _THE_CALLER)
    now, told = clock.now(), {**vars(new), "scopes": tuple(sorted(set(new.scopes))), "metadata": metadata}
    return Agent(id=new_id(), created_at=now, updated_at=now, **told)


def audit_creation(
    connection: Connection, agent: Agent, actor: str, clock: Clock, *, note: str = "", request_id: str = ""
) -> None:
    """Publishes that somebody has created an agent."""
    audit(
        connection,
        clock,
        action="agent.create",
        actor=actor,
        agent_id=agent.id,
        after=agent_told(agent),
        note=note,
        request_id=request_id,
    )


def ensure_agent(connection: Connection, *, agent_id: str, name: str, scopes: Sequence[str], clock: Clock) -> Agent:
    """The agent of that name with exactly these scopes, created with `agent_id` when there is none."""
    now, wanted = clock.now(), tuple(sorted(scopes))
    agent = Agent(id=agent_id, name=name, scopes=wanted, created_at=now, updated_at=now)
    if store.insert_unless_taken(connection, agent):
        audit_creation(connection, agent, agent.id, clock, note=_BOOTSTRAP)
        return agent
    present = store.find_named(connection, name=name)
    assert present is not None, "who is looked for at the start is not archived meanwhile"
    if present.scopes == wanted:
        return present
    return save_change(
        connection,
        present,
        replace(present, scopes=wanted),
        clock,
        action="agent.update",
        actor=present.id,
        note=_BOOTSTRAP,
    )


def get_agent(connection: Connection, *, agent_id: str) -> Agent:
    """The agent, which may be archived, or AgentNotFound."""
    agent = store.find(connection, agent_id=agent_id)
    if agent is None:
        raise AgentNotFound(agent_id)
    return agent


def lock_live_agent(connection: Connection, agent_id: str) -> Agent:
    """An agent that nobody else changes before this transaction ends. Raises AgentNotFound or AgentArchived."""
    agent = _locked(connection, agent_id)
    if agent.is_archived:
        raise AgentArchived(agent_id)
    return agent


def update_agent(
    connection: Connection,
    agent_id: str,
    changes: Mapping[str, Any],
    guard: Guard,
    caller: Caller,
    clock: Clock,
    *,
    version: int | None = None,
    request_id: str = "",
) -> Agent:
    """Changes some fields of an agent; of the metadata, those names that are given, or all of it when it is None.

    Raises AgentNotFound, AgentArchived, AgentVersionMismatch, AgentStatusIllegal, ScopesNotHeld, AgentNameTaken or
    InvalidArgument.
    """
    before = lock_live_agent(connection, agent_id)
    if version is not None and version != before.version:
        raise AgentVersionMismatch(agent_id, version, before.version)
    scope_rules.check_known(changes.get("scopes", ()))
    after = replace(before, **_settled(before, changes))
    _check_change(connection, before, after, guard, caller)
    return save_change(
        connection, before, after, clock, action="agent.update", actor=caller.agent_id, request_id=request_id
    )


def set_status(
    connection: Connection,
    agent_id: str,
    status: AgentStatus,
    caller: Caller,
    clock: Clock,
    *,
    note: str = "",
    request_id: str = "",
) -> Agent:
    """Says what an agent is at. Raises ScopeMissing, AgentNotFound, AgentArchived or AgentStatusIllegal."""
    check_speaks_for(caller, agent_id)
    before = lock_live_agent(connection, agent_id)
    _check_status(before, status)
    return save_change(
        connection,
        before,
        replace(before, status=status),
        clock,
        action="agent.set_status",
        actor=caller.agent_id,
        note=note,
        request_id=request_id,
    )


def archive_agent(
    connection: Connection, agent_id: str, caller: Caller, clock: Clock, *, request_id: str = ""
) -> Agent:
    """Archives an agent and ends its tokens and secret; one that is archived already stays as it is.

    Raises AgentNotFound, or InvalidArgument for the agent `system` and the caller itself.
    """
    _check_expendable(agent_id, caller)
    before = _locked(connection, agent_id)
    if before.is_archived:
        return before
    now = clock.now()
    token_store.revoke_all(connection, agent_id, revoked_at=now)
    secret_store.drop_secret(connection, agent_id=agent_id)
    after = replace(before, archived_at=now)
    return save_change(
        connection, before, after, clock, action="agent.archive", actor=caller.agent_id, request_id=request_id
    )


def save_change(
    connection: Connection,
    before: Agent,
    after: Agent,
    clock: Clock,
    *,
    action: str,
    actor: str,
    note: str = "",
    request_id: str = "",
) -> Agent:
    """Stores and audits what has been changed of a locked agent, if anything has. Raises AgentNameTaken."""
    if after == before and structs.is_same(before.metadata, after.metadata):
        return before
    after = replace(after, updated_at=clock.now(), version=before.version + 1)
    if not store.save(connection, after):
        raise AgentNameTaken(after.name)
    _tell_webhook(connection, before, after, clock)
    audit_change(
        connection,
        clock,
        action=action,
        actor=actor,
        before=before,
        after=after,
        note=note,
        request_id=request_id,
    )
    return after


def _tell_webhook(connection: Connection, before: Agent | None, after: Agent, clock: Clock) -> None:
    """Publishes where an agent is to be told of its runs, if that is another place than before."""
    told = before.told_at if before else None
    if after.told_at != told:
        payload = {"agent_id": after.id, "url": after.told_at}
        outbox.publish(connection, tables.outbox, outbox.AGENT_WEBHOOK, payload, clock)


def _locked(connection: Connection, agent_id: str) -> Agent:
    agent = store.lock(connection, agent_id=agent_id)
    if agent is None:
        raise AgentNotFound(agent_id)
    return agent


def _settled(before: Agent, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes as the agent is to have them."""
    settled = dict(changes)
    if "scopes" in settled:
        settled["scopes"] = tuple(sorted(set(settled["scopes"])))
    if "metadata" in settled:
        given = settled["metadata"]
        settled["metadata"] = {} if given is None else merged(before.metadata, given)
    return settled


def _check_change(connection: Connection, before: Agent, after: Agent, guard: Guard, caller: Caller) -> None:
    if before.id == SYSTEM_ID:
        _check_same(before, after)
    # What has not changed was checked when it was set; what an operator allows may have changed since.
    agent_faults.check(
        connection,
        guard,
        webhook_url=after.webhook_url if after.webhook_url != before.webhook_url else None,
        metadata=after.metadata,
        orchestrator_agent_id=(
            after.orchestrator_agent_id if after.orchestrator_agent_id != before.orchestrator_agent_id else None
        ),
        agent_id=before.id,
    )
    _check_status(before, after.status)
    gained = scope_rules.missing(after.scopes, before.scopes)
    if after.role != before.role and _BOUNDED_BY_ROLE in after.scopes:
        gained.append(_BOUNDED_BY_ROLE)
    check_held(gained, caller.scopes, _THE_CALLER)


def _check_status(before: Agent, status: AgentStatus) -> None:
    if status != before.status and status not in before.status.followers:
        raise AgentStatusIllegal(before.id, before.status, status, before.status.followers)


def _check_same(before: Agent, after: Agent) -> None:
    """Raises InvalidArgument when something changes by which Baton itself knows the agent `system`."""
    changed = [name for name in ("name", "scopes") if getattr(before, name) != getattr(after, name)]
    if changed:
        raise InvalidArgument.of(Violation(name, "cannot be changed of the agent 'system'") for name in changed)


def _check_expendable(agent_id: str, caller: Caller) -> None:
    if agent_id == SYSTEM_ID:
        raise InvalidArgument.of([Violation("agent_id", "is the agent 'system', which cannot be deleted")])
    if agent_id == caller.agent_id:
        description = "is the caller itself, which cannot be deleted: let another agent do it"
        raise InvalidArgument.of([Violation("agent_id", description)])
