"""Adding to logs, in batches, and reading them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, ServiceError, Violation
from services.chassis.ids import new_id
from services.chassis.json_limits import MAX_BYTES, json_faults
from services.sessions.errors import AgentArchived, AgentNotFound
from services.sessions.models.feed import Taken
from services.sessions.models.log import AgentBatch, NewAgentLog, NewSystemLog, SystemBatch, Tail
from services.sessions.operations.agent import get_agent
from services.sessions.operations.holding import check_speaks_for
from services.sessions.store import agent as agent_store
from services.sessions.store import agent_log, positions, system_log

MAX_PAYLOAD_BYTES = 64 * 1024


def check_agent_batch(batch: AgentBatch, writer: Caller) -> None:
    """Raises ScopeMissing for the log of somebody else, InvalidArgument that names the faulty entries."""
    check_speaks_for(writer, batch.agent_id)
    _refuse(
        fault
        for index, entry in enumerate(batch.entries)
        for fault in json_faults(f"entries[{index}].payload", entry.payload or {}, MAX_PAYLOAD_BYTES)
    )


def check_system_batch(batch: SystemBatch) -> None:
    """Raises InvalidArgument that names the faulty lines."""
    _refuse(
        fault
        for index, entry in enumerate(batch.entries)
        for fault in json_faults(f"entries[{index}].metadata", entry.metadata or {}, MAX_BYTES)
    )


def append_agent_logs(
    connection: Connection, batches: Sequence[AgentBatch], clock: Clock
) -> list[list[int] | ServiceError]:
    """Stores batches that were checked; answers for each the numbers of its entries, or why none is stored.

    That is AgentNotFound or AgentArchived.
    """
    refused = _refused(connection, {batch.agent_id for batch in batches})
    good = [batch for batch in batches if batch.agent_id not in refused]
    numbers = iter(_add_agent_logs(connection, good, clock) if good else ())
    return [refused.get(batch.agent_id) or next(numbers) for batch in batches]


def append_system_logs(connection: Connection, batches: Sequence[SystemBatch], clock: Clock) -> list[int]:
    """Stores batches that were checked; answers the first position of each."""
    taken = positions.take(connection, sum(len(batch.entries) for batch in batches), clock.now())
    rows: list[dict[str, Any]] = []
    firsts = []
    for batch in batches:
        firsts.append(taken.first_position + len(rows))
        for entry in batch.entries:
            rows.append({**_placed(entry, taken, len(rows)), "agent_id": batch.agent_id})
    system_log.add(connection, rows)
    return firsts


def tail(
    connection: Connection, *, agent_id: str, task_slug: str | None, limit: int, offset: int, verbose: bool
) -> Tail:
    """The end of an agent's log about a piece of work: by default the one that it has logged last.

    Raises AgentNotFound.
    """
    get_agent(connection, agent_id=agent_id)
    slug = agent_log.latest_slug(connection, agent_id) if task_slug is None else task_slug
    entries = agent_log.tail(connection, agent_id, slug, limit=limit, offset=offset)
    if not verbose:
        entries = [replace(entry, content="", payload=None) for entry in entries]
    return Tail(entries, slug, agent_log.next_index(connection, agent_id, slug))


def _refuse(faults: Iterator[Violation]) -> None:
    found = list(faults)
    if found:
        raise InvalidArgument.of(found)


def _refused(connection: Connection, agent_ids: set[str]) -> dict[str, ServiceError]:
    """Those of the agents whose logs nobody can write."""
    archived = agent_store.archived(connection, agent_ids)
    refused: dict[str, ServiceError] = {}
    for agent_id in agent_ids:
        if agent_id not in archived:
            refused[agent_id] = AgentNotFound(agent_id)
        elif archived[agent_id]:
            refused[agent_id] = AgentArchived(agent_id)
    return refused


def _add_agent_logs(connection: Connection, batches: Sequence[AgentBatch], clock: Clock) -> list[list[int]]:
    now = clock.now()
    counts = Counter((batch.agent_id, entry.task_slug) for batch in batches for entry in batch.entries)
    next_indexes = agent_log.take_indexes(connection, counts, now)
    # Last, because everybody who adds to any log waits for it.
    taken = positions.take(connection, sum(counts.values()), now)
    rows: list[dict[str, Any]] = []
    answers = []
    for batch in batches:
        numbers = []
        for entry in batch.entries:
            work = (batch.agent_id, entry.task_slug)
            numbers.append(next_indexes[work])
            next_indexes[work] += 1
            rows.append({**_placed(entry, taken, len(rows)), "agent_id": batch.agent_id, "entry_index": numbers[-1]})
        answers.append(numbers)
    agent_log.add(connection, rows)
    return answers


def _placed(entry: NewAgentLog | NewSystemLog, taken: Taken, place: int) -> dict[str, Any]:
    return {
        **vars(entry),
        "id": new_id(),
        "position": taken.first_position + place,
        "timestamp": entry.timestamp or taken.recorded_at,
        "recorded_at": taken.recorded_at,
    }
