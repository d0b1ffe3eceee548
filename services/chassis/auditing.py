"""Every call that changes something leaves one audit entry: its rule's own, or, where the rule has none, a plain one.

The plain one says who called what and what it was about, also of a call that changed nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message
from sqlalchemy import Connection, Table

from services.chassis import call, outbox, telemetry
from services.chassis.clock import Clock

_R = TypeVar("_R")


@dataclass(frozen=True)
class Author:
    """Who asks for what, as the audit tells it of any call."""

    action: str
    """Empty for a method that leaves no entry."""
    agent_id: str
    request: Message
    run_id: str
    trace_id: str

    @classmethod
    def of_current_call(cls, request: Message) -> "Author":
        """Who makes the current call."""
        serving = call.current.get()
        caller = serving.caller if serving else None
        return cls(
            action=serving.audit_action if serving else "",
            agent_id=caller.agent_id if caller else "",
            request=request,
            run_id=caller.run_id if caller else "",
            trace_id=telemetry.trace_id(),
        )


class Auditing:
    """Sees to it that what changes a context is in its outbox."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def around(self, connection: Connection, clock: Clock, author: Author, effect: Callable[[], _R]) -> _R:
        """The effect's response, with an entry about it in the transaction, whoever wrote it."""
        with outbox.watched() as written:
            response = effect()
        if author.action and not written:
            self.add(connection, clock, [(author, response)])
        return response

    def add(self, connection: Connection, clock: Clock, done: Sequence[tuple[Author, object]]) -> None:
        """Publishes a plain entry for each call, given its response."""
        entries = [
            outbox.entry(
                action=author.action,
                actor=author.agent_id,
                resource=_resource(author, response),
                request_id=author.request.request_id,  # type: ignore[attr-defined]
                trace_id=author.trace_id,
                run_id=author.run_id,
            )
            for author, response in done
            if author.action
        ]
        outbox.publish_all(connection, self._table, outbox.AUDIT, entries, clock)


def _resource(author: Author, response: object) -> str:
    """What the call was about: `noun/id`, by the id of what the response holds, or of what the request names."""
    noun = author.action.partition(".")[0]
    ids = (
        getattr(getattr(response, noun, None), "id", ""),
        getattr(author.request, f"{noun}_id", ""),
        getattr(response, f"{noun}_id", ""),
        getattr(getattr(response, "details", None), f"{noun}_id", ""),
    )
    return next((f"{noun}/{found}" for found in ids if found and isinstance(found, str)), noun)
