"""Nobody passes on what they do not hold, and nobody speaks for another one."""

from collections.abc import Collection, Iterable

from services.chassis.call import Caller
from services.chassis.errors import ScopeMissing
from services.sessions import scopes
from services.sessions.errors import ScopesNotHeld

_ADMIN = "agents:admin"


def check_held(wanted: Iterable[str], held: Collection[str], holder: str) -> None:
    """Raises ScopesNotHeld, which names `holder`, when something that is wanted is not held."""
    missing = scopes.missing(wanted, held)
    if missing:
        raise ScopesNotHeld(missing, holder)


def check_speaks_for(caller: Caller, agent_id: str) -> None:
    """Raises ScopeMissing unless the caller is that agent, or administers agents."""
    if caller.agent_id != agent_id and not caller.holds(_ADMIN):
        raise ScopeMissing(_ADMIN)
