"""An agent's `webhook_url`: it is told of what becomes of its own runs, and of nothing else."""

from typing import Any

import orjson
import pytest
from baton.api.v1.inbox_service_pb2 import DeliverMessagesRequest, OutboxMessage
from baton.api.v1.inbox_service_pb2_grpc import InboxServiceStub
from baton.tasks.v1 import webhook_pb2
from baton.tasks.v1 import webhook_service_pb2 as pb
from baton.tasks.v1.event_service_pb2_grpc import EventServiceStub
from baton.tasks.v1.task_service_pb2 import RunTaskNowRequest
from baton.tasks.v1.task_service_pb2_grpc import TaskServiceStub

from services.chassis.errors import FailedPrecondition, InvalidArgument
from services.chassis.ids import id_at, new_id
from services.chassis.timestamps import to_timestamp
from tests.integration.tasks.events import dispatch_all, event_request
from tests.integration.tasks.running import Tasks, task_request
from tests.integration.tasks.webhooks import change, deliveries_of, webhook_admin

URL = "https://agents.example/hook"
ADA, EVE = new_id(), new_id()


def told(tasks: Tasks, url: str | None, agent_id: str = ADA) -> OutboxMessage:
    """What sessions tells now, a moment after whatever it told before."""
    tasks.clock.advance(milliseconds=1)
    now, payload = tasks.clock.now(), orjson.dumps({"agent_id": agent_id, "url": url})
    return OutboxMessage(id=id_at(now), topic="agent_webhook", payload=payload, created_at=to_timestamp(now))


async def deliver(tasks: Tasks, *messages: OutboxMessage, source: str = "sessions") -> None:
    inbox = InboxServiceStub(tasks.channel(["messages:deliver"]))
    await inbox.DeliverMessages(DeliverMessagesRequest(source=source, messages=messages))


async def webhooks(tasks: Tasks) -> list[webhook_pb2.Webhook]:
    return list((await webhook_admin(tasks).ListWebhooks(pb.ListWebhooksRequest())).items)


async def run_of(tasks: Tasks, agent_id: str) -> str:
    """A run of a task of the agent's, which succeeds; answers its id."""
    owner = TaskServiceStub(tasks.channel(["tasks:write"], agent_id=agent_id))
    task = (await owner.CreateTask(task_request())).task
    await owner.RunTaskNow(RunTaskNowRequest(task_id=task.id))
    (leased,) = await tasks.lease()
    await tasks.finish(leased.lease)
    await dispatch_all(tasks)
    return leased.lease.run_id


async def test_an_agent_hears_of_its_own_runs_alone(tasks: Tasks) -> None:
    await deliver(tasks, told(tasks, URL))
    (webhook,) = await webhooks(tasks)
    assert (webhook.agent_id, webhook.url, webhook.enabled, webhook.created_by) == (ADA, URL, True, ADA)
    assert list(webhook.topics) == ["approval.*", "run.*"]
    await run_of(tasks, EVE)
    assert await deliveries_of(tasks, webhook.id) == []
    await run_of(tasks, ADA)
    assert [delivery.topic for delivery in await deliveries_of(tasks, webhook.id)] == ["run.succeeded"]


async def test_what_others_publish_in_its_name_is_not_for_it(tasks: Tasks) -> None:
    await deliver(tasks, told(tasks, URL))
    (webhook,) = await webhooks(tasks)
    await change(tasks, webhook.id, topics=["**", "run.*"])
    eve = EventServiceStub(tasks.channel(["events:publish"], agent_id=EVE))
    await eve.PublishEvent(event_request("order.created", {"created_by": ADA}))
    assert await deliveries_of(tasks, webhook.id) == []


async def test_the_newest_word_holds_whatever_comes_late_or_twice(tasks: Tasks) -> None:
    first, second, third, fourth = (told(tasks, url) for url in (URL, f"{URL}/2", None, f"{URL}/4"))
    await deliver(tasks, second)
    await deliver(tasks, first, second)
    (webhook,) = await webhooks(tasks)
    assert (webhook.url, webhook.enabled) == (f"{URL}/2", True)
    await deliver(tasks, third)
    await deliver(tasks, first, second)
    (cleared,) = await webhooks(tasks)
    assert (cleared.id, cleared.enabled) == (webhook.id, False)
    await deliver(tasks, fourth)
    (anew,) = await webhooks(tasks)
    assert (anew.id, anew.url, anew.enabled) == (webhook.id, f"{URL}/4", True)


async def test_an_agent_without_a_url_has_no_webhook(tasks: Tasks) -> None:
    await deliver(tasks, told(tasks, None))
    assert await webhooks(tasks) == []


async def test_its_url_is_the_agents_to_change(tasks: Tasks) -> None:
    await deliver(tasks, told(tasks, URL))
    (webhook,) = await webhooks(tasks)
    for refused_call in (
        change(tasks, webhook.id, url="https://elsewhere.example/"),
        webhook_admin(tasks).DeleteWebhook(pb.DeleteWebhookRequest(webhook_id=webhook.id)),
    ):
        with pytest.raises(FailedPrecondition) as refused:
            await refused_call
        assert refused.value.reason == "WEBHOOK_OF_AGENT"
    changed = await change(tasks, webhook.id, topics=["run.failed"], enabled=False)
    assert (list(changed.topics), changed.enabled, changed.url) == (["run.failed"], False, URL)
    rotated = await webhook_admin(tasks).RotateWebhookSecret(pb.RotateWebhookSecretRequest(webhook_id=webhook.id))
    assert rotated.secret.startswith("whsec_")


@pytest.mark.parametrize("payload", [{}, {"agent_id": "x", "url": URL}, {"agent_id": ADA}, {"agent_id": ADA, "url": 7}])
async def test_what_is_no_word_of_a_url_is_refused(tasks: Tasks, payload: Any) -> None:
    message = told(tasks, URL)
    message.payload = orjson.dumps(payload)
    with pytest.raises(InvalidArgument):
        await deliver(tasks, message)
    with pytest.raises(InvalidArgument):
        await deliver(tasks, told(tasks, URL), source="workflows")
    assert await webhooks(tasks) == []
