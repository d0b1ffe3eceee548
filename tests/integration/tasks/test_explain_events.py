"""Why a task that waits for events has not fired."""

from typing import Any

from baton.tasks.v1 import task_service_pb2 as pb
from baton.tasks.v1.task_pb2 import OVERLAP_SKIP
from sqlalchemy import update as update_rows

from services.chassis.structs import from_struct
from services.tasks.store import tables
from tests.integration.tasks.events import FILTERED, RAN, publish, replay, waiting_for
from tests.integration.tasks.lifecycle import cancel, pause, resume, update
from tests.integration.tasks.running import Tasks


async def explain(tasks: Tasks, task_id: str) -> tuple[list[str], Any]:
    """The codes of what is in the way, and the whole explanation."""
    answer = await tasks.tasks.ExplainTask(pb.ExplainTaskRequest(task_id=task_id))
    return [blocker.code for blocker in answer.blockers], answer


async def finish_all(tasks: Tasks) -> None:
    for leased in await tasks.lease(limit=10):
        await tasks.finish(leased.lease)


async def test_before_the_first_event_that_is_what_it_waits_for(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*")
    codes, answer = await explain(tasks, task.id)
    assert codes == ["no_event"]
    assert answer.summary == "no event has come whose topic matches 'order.*'"
    assert answer.blockers[0].action == 'POST /events with {"topic":"order.any","payload":{}}'
    assert from_struct(answer.blockers[0].evidence) == {"topic": "order.*"}
    assert not answer.HasField("last_delivery")


async def test_what_only_baton_publishes_is_waited_for(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "run.failed")
    codes, answer = await explain(tasks, task.id)
    assert (codes, answer.blockers[0].action) == (["awaiting_event"], "")
    assert "Baton publishes it" in answer.summary


async def test_after_an_event_it_waits_for_the_next(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*")
    done = await publish(tasks)
    codes, answer = await explain(tasks, task.id)
    assert codes == ["no_worker"], "the run that it made has to be done first"
    assert (answer.last_delivery.event_id, answer.last_delivery.outcome) == (done.event_id, RAN)
    await finish_all(tasks)
    codes, answer = await explain(tasks, task.id)
    assert codes == ["awaiting_event"]
    assert answer.summary == "the task waits for the next event whose topic matches 'order.*'"
    assert from_struct(answer.blockers[0].evidence) == {
        "topic": "order.*", "last_event_id": done.event_id, "last_outcome": "ran",
    }  # fmt: skip


async def test_what_its_filter_left_out_is_told_until_the_filter_is_another(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*", event_filter="event.total > 100")
    done = await publish(tasks, payload={"total": 50})
    codes, answer = await explain(tasks, task.id)
    assert codes == ["event_filtered", "awaiting_event"]
    assert answer.summary == f"event {done.event_id} made no run: the filter is not true: event.total > 100"
    assert answer.last_delivery.outcome == FILTERED
    await update(tasks, task.id, event_filter="event.total > 60")
    assert (await explain(tasks, task.id))[0] == ["event_filtered", "awaiting_event"]
    await update(tasks, task.id, event_filter="event.total > 10")
    assert (await explain(tasks, task.id))[0] == ["awaiting_event"]
    await replay(tasks, done.event_id, task.id)
    await finish_all(tasks)
    assert (await explain(tasks, task.id))[0] == ["awaiting_event"]


async def test_a_filter_that_failed_is_told_with_its_fault(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*", event_filter="event.total > 100")
    await publish(tasks)
    codes, answer = await explain(tasks, task.id)
    assert codes == ["event_filter_failed", "awaiting_event"]
    assert "key not found in map" in answer.summary


async def test_what_came_while_it_was_paused_is_told(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*")
    await pause(tasks, task.id)
    done = await publish(tasks)
    assert (await explain(tasks, task.id))[0] == ["task_paused"]
    await resume(tasks, task.id)
    codes, answer = await explain(tasks, task.id)
    assert codes == ["event_missed", "awaiting_event"]
    assert answer.blockers[0].action == f'POST /events/{done.event_id}/replay with {{"task_id": "{task.id}"}}'


async def test_what_was_in_the_way_of_the_last_event_is_told_while_nothing_has_run_since(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*", overlap=OVERLAP_SKIP)
    for _ in range(2):
        await publish(tasks)
    await finish_all(tasks)
    assert (await explain(tasks, task.id))[0] == ["overlap_skipped", "awaiting_event"]
    tasks.clock.advance(seconds=1)
    await tasks.run_now(task.id)
    await finish_all(tasks)
    assert (await explain(tasks, task.id))[0] == ["awaiting_event"]


async def test_a_duplicate_waits_for_the_end_of_the_window(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*", dedupe_key="order", dedupe_window_seconds=60)
    first, second = [await publish(tasks) for _ in range(2)]
    await finish_all(tasks)
    codes, answer = await explain(tasks, task.id)
    assert (codes, answer.blockers[0].action) == (["duplicate_suppressed", "awaiting_event"], "")
    assert from_struct(answer.blockers[0].evidence)["run_id"] == first.deliveries[0].run_id
    tasks.clock.advance(seconds=60)
    assert (await explain(tasks, task.id))[1].blockers[0].action.startswith(f"POST /events/{second.event_id}/replay")


async def test_a_loop_that_was_cut_is_told_until_the_filter_leaves_it_out(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*")
    done = await publish(tasks, payload={"id": 7})
    await finish_all(tasks)
    deeper = update_rows(tables.events).values(depth=9)
    await tasks.database.transact(lambda connection, clock: connection.execute(deeper))
    await replay(tasks, done.event_id)
    codes, answer = await explain(tasks, task.id)
    assert codes == ["event_too_deep", "awaiting_event"]
    assert "a loop is cut here" in answer.summary
    await update(tasks, task.id, event_filter="event.id != 7")
    assert (await explain(tasks, task.id))[0] == ["awaiting_event"]


async def test_a_canceled_task_waits_for_nothing(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*")
    await publish(tasks)
    await cancel(tasks, task.id)
    assert (await explain(tasks, task.id))[0] == ["task_canceled"]
