"""Recording what agents have used, and adding it up."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import is_uuid, new_id
from services.chassis.outbox import Message, MessageRefused
from services.sessions.errors import AgentArchived, AgentNotFound
from services.sessions.models.usage import Amounts, Call, NewCall
from services.sessions.operations import budget
from services.sessions.operations.holding import check_speaks_for
from services.sessions.store import agent as agent_store
from services.sessions.store import session as session_store
from services.sessions.store import usage as store
from services.sessions.store.tables import NO_SESSION


def record_usage(connection: Connection, new: Sequence[NewCall], caller: Caller, clock: Clock) -> list[str]:
    """Stores calls and adds them to all sums and budgets; answers their ids.

    Raises ScopeMissing for another agent, AgentNotFound, AgentArchived, or InvalidArgument that names faulty calls.
    """
    for agent_id in {call.agent_id for call in new}:
        check_speaks_for(caller, agent_id)
    if faults := list(_faults(connection, new)):
        raise InvalidArgument.of(faults)
    archived = agent_store.archived(connection, {call.agent_id for call in new})
    for call in new:
        if call.agent_id not in archived:
            raise AgentNotFound(call.agent_id)
        if archived[call.agent_id]:
            raise AgentArchived(call.agent_id)
    calls = [_call(call, new_id(), caller.agent_id, clock.now()) for call in new]
    _record(connection, calls, clock)
    return [call.id for call in calls]


def take_usage(connection: Connection, clock: Clock, source: str, messages: Sequence[Message]) -> None:
    """Records what the runs of tasks have used, once each: a call's id is its message's. Raises MessageRefused."""
    known = store.known(connection, {message.id for message in messages})
    told = [_told(message) for message in messages if message.id not in known]
    there = agent_store.archived(connection, {call.agent_id for call, _ in told})
    sessions = session_store.open_about(connection, {task_id for _, task_id in told if task_id})
    # Of an agent that is not here nobody can be told.
    calls = [replace(call, session_id=sessions.get(task_id)) for call, task_id in told if call.agent_id in there]
    _record(connection, calls, clock)


def _told(message: Message) -> tuple[Call, str]:
    """A call, and the task whose run made it."""
    match message.payload:
        case {
            "agent_id": str(agent_id),
            "task_id": str(task_id),
            "run_id": str(run_id),
            "tool_calls": int(tool_calls),
            "wall_time_ms": int(wall_time_ms),
        } if is_uuid(agent_id) and is_uuid(run_id) and (not task_id or is_uuid(task_id)):
            used = Amounts(tool_calls=max(0, tool_calls), wall_time_ms=max(0, wall_time_ms))
            new = NewCall(agent_id=agent_id, run_id=run_id, amounts=used)
            return _call(new, message.id, agent_id, message.created_at), task_id
    raise MessageRefused(message.id, "has not the fields agent_id, task_id, run_id, tool_calls and wall_time_ms")


def _call(new: NewCall, call_id: str, recorded_by: str, now: datetime) -> Call:
    return Call(
        id=call_id,
        agent_id=new.agent_id,
        session_id=new.session_id,
        run_id=new.run_id,
        model=new.model,
        amounts=new.amounts,
        occurred_at=new.occurred_at or now,
        recorded_by=recorded_by,
    )


def _faults(connection: Connection, new: Sequence[NewCall]) -> Iterator[Violation]:
    wanted = {call.session_id for call in new if call.session_id}
    there = session_store.existing(connection, wanted) if wanted else set()
    for index, call in enumerate(new):
        if call.session_id and call.session_id not in there:
            yield Violation(f"calls[{index}].session_id", f"session {call.session_id} not found")
        if call.amounts.cached_tokens > call.amounts.input_tokens:
            yield Violation(f"calls[{index}].cached_tokens", "is more than input_tokens, of which it is a part")


def _record(connection: Connection, calls: Sequence[Call], clock: Clock) -> None:
    if not calls:
        return
    now = clock.now()
    store.add_calls(connection, calls)
    by_agent = _added_up((call.agent_id, call.amounts) for call in calls)
    # In one order, so that nobody waits in a circle.
    for agent_id, used in sorted(by_agent.items(), key=lambda item: item[0]):
        agent_store.add_usage(connection, agent_id=agent_id, used=used, now=now)
    store.add_days(connection, _by_day(calls, f"{now:%Y-%m-%d}"))
    by_session = _added_up((call.session_id, call.amounts) for call in calls if call.session_id)
    budget.spend(connection, by_agent, by_session, clock)


def _by_day(calls: Iterable[Call], day: str) -> Mapping[store.Day, tuple[int, Amounts]]:
    sums: dict[store.Day, tuple[int, Amounts]] = defaultdict(lambda: (0, Amounts()))
    for call in calls:
        key = (day, call.agent_id, call.session_id or NO_SESSION, call.model)
        count, used = sums[key]
        sums[key] = (count + 1, used + call.amounts)
    return sums


def _added_up(used: Iterable[tuple[str, Amounts]]) -> dict[str, Amounts]:
    sums: dict[str, Amounts] = defaultdict(Amounts)
    for subject, amounts in used:
        sums[subject] += amounts
    return sums
