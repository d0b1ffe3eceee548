"""The agents that exist from the start, and their first tokens."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.ids import new_id
from services.sessions import files
from services.sessions import scopes as scope_rules
from services.sessions.errors import TokenInvalid
from services.sessions.models.agent import SYSTEM_ID, Agent
from services.sessions.models.token import MintedToken
from services.sessions.operations.agent import ensure_agent
from services.sessions.operations.token import TOKEN_LIFETIME, authenticate, create_first_token

_log = logging.getLogger(__name__)
# A token that ends sooner is replaced, so that a process does not outlive the token it started with.
RENEW_BEFORE = timedelta(days=7)


@dataclass(frozen=True)
class FirstAgent:
    """An agent that Baton itself needs."""

    name: str
    scopes: tuple[str, ...]


SYSTEM = FirstAgent("system", (scope_rules.ADMIN,))
SERVICES = FirstAgent("services", ("messages:deliver",))
WORKER = FirstAgent("worker", ("agents:act", "agents:read", "runs:read", "runs:work", "tools:admin", "tools:read"))


def mint_to_file(database: Database, name: str, scopes: Sequence[str], path: Path) -> bool:
    """Sees to it that `path` (mode 0600) holds a token of the agent `name` with `scopes`; says whether it is new.

    The agent is created when missing and given exactly these scopes. A token that is already in the file stays
    if it is the agent's, holds the scopes and has more than RENEW_BEFORE to live; a new one lives 90 days.
    """
    present = path.read_text().strip() if path.exists() else ""

    def mint_if_needed(connection: Connection, clock: Clock) -> MintedToken | None:
        agent_id = SYSTEM_ID if name == SYSTEM.name else new_id()
        agent = ensure_agent(connection, agent_id=agent_id, name=name, scopes=scopes, clock=clock)
        if _serves(connection, present, agent, clock):
            return None
        return create_first_token(connection, agent_id=agent.id, scopes=scopes, lifetime=TOKEN_LIFETIME, clock=clock)

    minted = database.run(mint_if_needed)
    if minted is None:
        return False
    files.replace(path, minted.text.encode(), files.PRIVATE)
    _log.info("token_minted", extra={"agent": name, "token_id": minted.token.id, "path": str(path)})
    return True


def _serves(connection: Connection, text: str, agent: Agent, clock: Clock) -> bool:
    try:
        token, owner = authenticate(connection, text=text, clock=clock)
    except TokenInvalid:
        return False
    lasts = token.expires_at - clock.now() > RENEW_BEFORE
    return lasts and owner.id == agent.id and not scope_rules.missing(agent.scopes, token.scopes)
