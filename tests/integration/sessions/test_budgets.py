"""Budgets: made, spent, exceeded, and told to those who enforce them."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from baton.sessions.v1 import budget_pb2, session_pb2
from baton.sessions.v1.budget_service_pb2 import (
    CreateBudgetRequest,
    DeleteBudgetRequest,
    GetBudgetRequest,
    ListBudgetsRequest,
    UpdateBudgetRequest,
)
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import select

from services.chassis.errors import AlreadyExists, InvalidArgument, NotFound
from services.chassis.ids import new_id
from services.chassis.timestamps import from_timestamp
from services.sessions.store import tables
from tests.integration.sessions.lifecycles import Owner, owner_of
from tests.integration.sessions.running import Sessions
from tests.integration.sessions.test_usage import record

TOKENS, COST, TOOL_CALLS = (
    budget_pb2.BUDGET_METRIC_TOKENS,
    budget_pb2.BUDGET_METRIC_COST_MICROUSD,
    budget_pb2.BUDGET_METRIC_TOOL_CALLS,
)
DAY, MONTH = budget_pb2.BUDGET_PERIOD_DAY, budget_pb2.BUDGET_PERIOD_MONTH
WITHIN, SOFT, HARD = (
    budget_pb2.BUDGET_STATE_WITHIN,
    budget_pb2.BUDGET_STATE_SOFT_EXCEEDED,
    budget_pb2.BUDGET_STATE_HARD_EXCEEDED,
)


@pytest.fixture
async def owner(sessions: Sessions) -> Owner:
    return await owner_of(sessions)


async def make(sessions: Sessions, **fields: Any) -> budget_pb2.Budget:
    request = CreateBudgetRequest(**{"metric": TOKENS} | fields)
    return (await sessions.budgets(["agents:admin"]).CreateBudget(request)).budget


async def read(sessions: Sessions, budget_id: str) -> budget_pb2.Budget:
    return (await sessions.budgets(["agents:read"]).GetBudget(GetBudgetRequest(budget_id=budget_id))).budget


async def change(sessions: Sessions, budget_id: str, *mask: str, **fields: Any) -> budget_pb2.Budget:
    request = UpdateBudgetRequest(budget_id=budget_id, update_mask=FieldMask(paths=mask), **fields)
    return (await sessions.budgets().UpdateBudget(request)).budget


async def told(sessions: Sessions, topic: str) -> list[dict[str, Any]]:
    query = select(tables.outbox.c.payload).where(tables.outbox.c.topic == topic).order_by(tables.outbox.c.id)
    return await sessions.database.read(lambda connection, clock: list(connection.execute(query).scalars()))


async def events(sessions: Sessions) -> list[tuple[str, int]]:
    return [(one["topic"], one["payload"]["used"]) for one in await told(sessions, "event") if "used" in one["payload"]]


async def test_a_budget_counts_from_when_it_is_made(sessions: Sessions, owner: Owner) -> None:
    await record(sessions, owner.agent_id)
    made = await make(sessions, agent_id=owner.agent_id, soft_limit=200, hard_limit=300)
    assert (made.used, made.state, made.HasField("period_ends_at")) == (0, WITHIN, False)
    for used, state in ((120, WITHIN), (240, SOFT), (360, HARD), (480, HARD)):
        await record(sessions, owner.agent_id)
        budget = await read(sessions, made.id)
        assert (budget.used, budget.state) == (used, state)
    assert await events(sessions) == [("budget.soft_exceeded", 240), ("budget.exceeded", 360)]
    ready, blocked = await told(sessions, "budget")
    assert ready | {"reason": ""} == {
        "kind": "agent", "id": owner.agent_id, "is_blocked": False, "blocked_until": None, "is_counted": False,
        "reason": "",
    }  # fmt: skip
    assert (blocked["is_blocked"], blocked["blocked_until"]) == (True, None)
    assert blocked["reason"] == f"budget {made.id} of agent {owner.agent_id}: 360 of 300 tokens"


@pytest.mark.parametrize(
    ("period", "now", "end"),
    [
        (DAY, datetime(2026, 3, 29, 23, 59, 59, tzinfo=UTC), datetime(2026, 3, 30, tzinfo=UTC)),
        (MONTH, datetime(2026, 12, 31, 12, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
async def test_a_new_period_begins_anew(
    sessions: Sessions, owner: Owner, period: int, now: datetime, end: datetime
) -> None:
    sessions.clock.advance(seconds=(now - sessions.clock.now()).total_seconds())
    owner = await owner_of(sessions)
    made = await make(sessions, agent_id=owner.agent_id, period=period, soft_limit=1, hard_limit=100)
    await record(sessions, owner.agent_id)
    assert from_timestamp((await read(sessions, made.id)).period_ends_at) == end
    assert datetime.fromisoformat((await told(sessions, "budget"))[-1]["blocked_until"]) == end
    sessions.clock.advance(seconds=(end - now).total_seconds())
    after = await read(sessions, made.id)
    assert (after.used, after.state) == (0, WITHIN)
    await record(sessions, owner.agent_id)
    assert (await read(sessions, made.id)).used == 120
    assert [topic for topic, _ in await events(sessions)] == ["budget.soft_exceeded", "budget.exceeded"] * 2


async def test_raising_or_removing_a_budget_lets_work_go_on(sessions: Sessions, owner: Owner) -> None:
    tokens = await make(sessions, agent_id=owner.agent_id, hard_limit=100)
    cost = await make(sessions, agent_id=owner.agent_id, metric=COST, period=DAY, hard_limit=100)
    await record(sessions, owner.agent_id)
    both = (await told(sessions, "budget"))[-1]
    assert (both["is_blocked"], both["blocked_until"]) == (True, None)  # one of them never ends
    assert (await change(sessions, tokens.id, hard_limit=1000)).hard_limit == 1000
    until_midnight = (await told(sessions, "budget"))[-1]
    assert until_midnight["is_blocked"]
    assert until_midnight["blocked_until"] is not None
    await sessions.budgets().DeleteBudget(DeleteBudgetRequest(budget_id=cost.id))
    assert not (await told(sessions, "budget"))[-1]["is_blocked"]
    with pytest.raises(NotFound):
        await read(sessions, cost.id)


async def test_a_limit_is_taken_away(sessions: Sessions, owner: Owner) -> None:
    made = await make(sessions, agent_id=owner.agent_id, soft_limit=10, hard_limit=20)
    after = await change(sessions, made.id, "hard_limit")
    assert (after.soft_limit, after.HasField("hard_limit")) == (10, False)
    with pytest.raises(InvalidArgument) as refused:
        await change(sessions, made.id, "soft_limit")
    assert [fault.field for fault in refused.value.violations] == ["hard_limit"]
    with pytest.raises(InvalidArgument) as refused:
        await change(sessions, made.id, "metric")
    assert [fault.field for fault in refused.value.violations] == ["update_mask"]


async def test_a_hard_limit_of_nothing_stops_at_once(sessions: Sessions, owner: Owner) -> None:
    made = await make(sessions, agent_id=owner.agent_id, metric=TOOL_CALLS, hard_limit=0)
    assert made.state == HARD
    (blocked,) = await told(sessions, "budget")
    assert (blocked["is_blocked"], blocked["is_counted"]) == (True, True)


async def test_a_session_s_budget_is_about_its_task(sessions: Sessions, owner: Owner) -> None:
    task_id = new_id()
    session_id, idle = await owner.begin(task_id=task_id), await owner.begin()
    await make(sessions, session_id=session_id, hard_limit=100)
    await make(sessions, session_id=idle, hard_limit=100)
    await record(sessions, owner.agent_id, *({"input_tokens": 100, "session_id": one} for one in (session_id, idle)))
    messages = [(one["kind"], one["id"], one["is_blocked"]) for one in await told(sessions, "budget")]
    assert messages == [("task", task_id, False), ("task", task_id, True)]
    assert len(await events(sessions)) == 2


async def standings(sessions: Sessions) -> dict[str, tuple[bool, bool]]:
    """Of each task that was told of whether its runs are stopped, and whether they are counted."""
    return {one["id"]: (one["is_blocked"], one["is_counted"]) for one in await told(sessions, "budget")}


async def test_a_session_takes_its_budgets_to_another_task(sessions: Sessions, owner: Owner) -> None:
    first, second = new_id(), new_id()
    session_id, without = await owner.begin(task_id=first), await owner.begin(task_id=first)
    await make(sessions, session_id=session_id, hard_limit=100)
    calls = await make(sessions, session_id=session_id, metric=TOOL_CALLS, hard_limit=100)
    await record(sessions, owner.agent_id, {"input_tokens": 100, "session_id": session_id})
    assert await standings(sessions) == {first: (True, True)}
    await owner.update(without, task_id=second)
    assert await standings(sessions) == {first: (True, True)}
    await owner.update(session_id, task_id=second)
    assert await standings(sessions) == {first: (False, False), second: (True, True)}
    await owner.update(session_id, status=session_pb2.SESSION_STATUS_ACTIVE)
    await sessions.budgets().DeleteBudget(DeleteBudgetRequest(budget_id=calls.id))
    assert len(await told(sessions, "budget")) == 6
    assert await standings(sessions) == {first: (False, False), second: (True, False)}


async def test_a_budget_is_used_up_while_its_session_goes_to_another_task(sessions: Sessions, owner: Owner) -> None:
    for _ in range(10):
        first, second = new_id(), new_id()
        session_id = await owner.begin(task_id=first)
        await make(sessions, session_id=session_id, hard_limit=100)
        used = record(sessions, owner.agent_id, {"input_tokens": 100, "session_id": session_id})
        await asyncio.gather(used, owner.update(session_id, task_id=second))
        told_last = await standings(sessions)
        assert (told_last[first], told_last[second]) == ((False, False), (True, False))


async def test_of_fifty_writers_one_reaches_the_limit(sessions: Sessions, owner: Owner) -> None:
    made = await make(sessions, agent_id=owner.agent_id, soft_limit=1200, hard_limit=3000)
    await asyncio.gather(*(record(sessions, owner.agent_id) for _ in range(50)))
    assert (await read(sessions, made.id)).used == 50 * 120
    assert await events(sessions) == [("budget.soft_exceeded", 1200), ("budget.exceeded", 3000)]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"hard_limit": 1}, ["agent_id"]),
        ({"agent_id": "a", "session_id": "s", "hard_limit": 1}, ["agent_id"]),
        ({"agent_id": "a"}, ["hard_limit"]),
        ({"agent_id": "a", "soft_limit": 3, "hard_limit": 2}, ["soft_limit"]),
        ({"session_id": "s", "hard_limit": 2, "period": DAY}, ["period"]),
        ({"agent_id": "a", "hard_limit": -1}, ["hard_limit"]),
        ({"agent_id": "a", "hard_limit": 1, "metric": 0}, ["metric"]),
    ],
)
async def test_what_is_no_budget_is_told_and_not_stored(
    sessions: Sessions, owner: Owner, fields: dict[str, Any], named: list[str]
) -> None:
    ids = {"a": owner.agent_id, "s": await owner.begin()}
    with pytest.raises(InvalidArgument) as refused:
        await make(sessions, **{name: ids.get(value, value) for name, value in fields.items()})
    assert [fault.field for fault in refused.value.violations] == named
    assert await sessions.count(tables.budgets) == 0


async def test_there_is_one_budget_of_a_kind(sessions: Sessions, owner: Owner) -> None:
    made = await make(sessions, agent_id=owner.agent_id, hard_limit=1)
    with pytest.raises(AlreadyExists):
        await make(sessions, agent_id=owner.agent_id, hard_limit=2)
    other = await make(sessions, agent_id=owner.agent_id, hard_limit=2, period=MONTH)
    for fields in ({"agent_id": new_id()}, {"session_id": new_id()}):
        with pytest.raises(NotFound):
            await make(sessions, hard_limit=1, **fields)
    reader = sessions.budgets(["agents:read"])
    page = await reader.ListBudgets(ListBudgetsRequest(agent_id=owner.agent_id, limit=1))
    rest = await reader.ListBudgets(ListBudgetsRequest(agent_id=owner.agent_id, limit=1, cursor=page.next_cursor))
    assert [page.items[0].id, rest.items[0].id, rest.has_more] == [other.id, made.id, False]
    assert not (await reader.ListBudgets(ListBudgetsRequest(session_id=new_id()))).items
