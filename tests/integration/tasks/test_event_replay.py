"""Publishing an event anew: for the tasks as they are now, or for one of them."""

import pytest
from baton.tasks.v1 import event_service_pb2 as pb
from sqlalchemy import update as update_rows

from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from services.chassis.ids import new_id
from services.chassis.structs import from_struct
from services.tasks.models.event import MAX_DEPTH
from services.tasks.store import tables
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.events import (
    FILTERED,
    NO_TASK,
    RAN,
    TOO_DEEP,
    event_of,
    publish,
    publisher,
    replay,
    runs_of_event,
    waiting_for,
)
from tests.integration.tasks.lifecycle import cancel, update
from tests.integration.tasks.running import Tasks


async def test_an_event_is_published_anew_for_the_tasks_that_there_are_now(tasks: Tasks) -> None:
    old = await publish(tasks, "order.created", {"id": 7})
    assert old.reason == NO_TASK
    task = await waiting_for(tasks, "order.*")
    anew = await replay(tasks, old.event_id)
    assert (anew.replay_of, anew.topic, list(anew.triggered_tasks)) == (old.event_id, "order.created", [task.id])
    assert anew.event_id != old.event_id
    event = (await event_of(tasks, anew.event_id)).event
    assert (event.replay_of, from_struct(event.payload)) == (old.event_id, {"id": 7})
    (run,) = await runs_of_event(tasks, anew.event_id)
    assert run.task_id == task.id
    (leased,) = await tasks.lease()
    assert (from_struct(leased.event), leased.event_id) == ({"id": 7}, anew.event_id)
    # What the old one did stays as it was.
    assert (await event_of(tasks, old.event_id)).event.reason == NO_TASK


async def test_a_task_that_ran_runs_again(tasks: Tasks) -> None:
    await waiting_for(tasks, "order.*")
    first = await publish(tasks)
    second, third = [await replay(tasks, first.event_id) for _ in range(2)]
    assert len({done.deliveries[0].run_id for done in (first, second, third)}) == 3


async def test_an_event_is_published_anew_for_one_task(tasks: Tasks) -> None:
    one, other = await waiting_for(tasks, "order.*"), await waiting_for(tasks, "order.*")
    old = await publish(tasks)
    anew = await replay(tasks, old.event_id, one.id)
    assert [(delivery.task_id, delivery.outcome) for delivery in anew.deliveries] == [(one.id, RAN)]
    assert anew.complete
    await tasks.service.dispatcher.step()
    assert (await event_of(tasks, anew.event_id)).event.matched_tasks == 1, other.id


async def test_its_filter_holds_and_may_have_changed(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*", event_filter="event.total > 100")
    old = await publish(tasks, payload={"total": 50})
    assert (await replay(tasks, old.event_id, task.id)).deliveries[0].outcome == FILTERED
    await update(tasks, task.id, event_filter="event.total > 10")
    assert (await replay(tasks, old.event_id, task.id)).deliveries[0].outcome == RAN


async def test_only_a_task_that_waits_for_its_topic_gets_it(tasks: Tasks) -> None:
    old = await publish(tasks)
    manual, other = await tasks.create(), await waiting_for(tasks, "invoice.*")
    gone = await waiting_for(tasks, "order.*")
    await cancel(tasks, gone.id)
    for task in (manual, other, gone):
        with pytest.raises(FailedPrecondition, match=task.id) as refused:
            await replay(tasks, old.event_id, task.id)
        assert refused.value.reason == "TASK_NOT_LISTENING"
        assert refused.value.metadata == {"task_id": task.id, "topic": "order.created"}
    with pytest.raises(NotFound) as missing:
        await replay(tasks, old.event_id, new_id())
    assert missing.value.reason == "TASK_NOT_FOUND"
    assert await tasks.count(tables.events) == 1


async def test_a_repeated_request_is_one_event(tasks: Tasks) -> None:
    await waiting_for(tasks, "order.*")
    old, one = await publish(tasks), publisher(tasks)
    request = pb.ReplayEventRequest(event_id=old.event_id, request_id="the key")
    assert await one.ReplayEvent(request) == await one.ReplayEvent(request)
    assert (await tasks.count(tables.events), await tasks.count(tables.runs)) == (2, 2)
    with pytest.raises(InvalidArgument) as refused:
        await one.ReplayEvent(pb.ReplayEventRequest(event_id=new_id(), request_id="the key"))
    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_it_is_audited(tasks: Tasks) -> None:
    old, agent_id = await publish(tasks), new_id()
    anew = await publisher(tasks, agent_id=agent_id).ReplayEvent(pb.ReplayEventRequest(event_id=old.event_id))
    entry = (await audited_changes(tasks))[-1]
    assert (entry["action"], entry["actor"], entry["resource"]) == (
        "event.replay", agent_id, f"event/{anew.details.event_id}",
    )  # fmt: skip
    assert entry["after"]["replay_of"] == old.event_id


async def test_no_loop_gets_around_its_limit_that_way(tasks: Tasks) -> None:
    await waiting_for(tasks, "order.*")
    old = await publish(tasks)
    deeper = update_rows(tables.events).values(depth=MAX_DEPTH + 1)
    await tasks.database.transact(lambda connection, clock: connection.execute(deeper))
    assert (await replay(tasks, old.event_id)).deliveries[0].outcome == TOO_DEEP
