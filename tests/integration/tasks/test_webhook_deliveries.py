"""Events reach webhooks: signed, at least once, again and again until they are taken or given up."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import orjson
import pytest
from baton.tasks.v1 import webhook_service_pb2 as pb
from baton.tasks.v1.approval_service_pb2 import RequestApprovalRequest
from baton.tasks.v1.approval_service_pb2_grpc import ApprovalServiceStub
from baton.tasks.v1.event_service_pb2 import PruneEventsRequest
from baton.tasks.v1.event_service_pb2_grpc import EventServiceStub
from standardwebhooks import Webhook, WebhookVerificationError

from services.chassis.egress import allowed
from services.chassis.egress.client import Egress
from services.chassis.egress.guard import Guard
from services.chassis.errors import Unavailable
from services.tasks import deliverer as loop
from services.tasks import webhook_sender
from services.tasks.deliverer import Deliverer
from services.tasks.models.webhook import MAX_ATTEMPTS, Answered
from services.tasks.operations import dispatch, retention
from services.tasks.operations import webhook_delivery as operations
from services.tasks.store import tables
from services.tasks.webhook_sender import WebhookSender
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.events import dispatch_all, events_of, publish, replay, waiting_for
from tests.integration.tasks.reporting import SUCCEEDED, reporter
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.webhooks import (
    DEAD,
    DELIVERED,
    PENDING,
    change,
    deliver_all,
    deliveries_of,
    read,
    received,
    webhook_admin,
    webhook_for,
)
from tests.support.http_server import HttpServer, falls_silent_after, said
from tests.support.resolver import RebindingResolver
from tests.support.waiting import await_until


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with HttpServer().serving() as one:
        one.answers["/hook"] = said(204)
        yield one


def another(tasks: Tasks) -> Deliverer:
    """That of a second replica."""
    return Deliverer(tasks.database, WebhookSender(Egress(Guard(allowed.parse("loopback")))))


def signatures(headers: dict[str, str]) -> int:
    return len(headers["webhook-signature"].split(" "))


async def finished_run(tasks: Tasks) -> str:
    """A run that has just succeeded."""
    await tasks.run_now((await tasks.create()).id)
    (leased,) = await tasks.lease()
    assert await tasks.finish(leased.lease)
    return leased.lease.run_id


async def test_an_event_is_sent_signed_to_the_webhooks_that_are_for_its_topic(tasks: Tasks, server: HttpServer) -> None:
    made = await webhook_for(tasks, server.url("/hook"), "order.*", "order.created", "**")
    other = await webhook_for(tasks, server.url("/other"), "invoice.*")
    published = await publish(tasks, payload={"order": 7})
    (delivery,) = await deliveries_of(tasks, made.webhook.id)
    assert (delivery.status, delivery.attempts, delivery.topic) == (PENDING, 0, "order.created")
    assert delivery.event_id == published.event_id
    await deliver_all(tasks)
    (asked,) = server.asked
    assert Webhook(made.secret).verify(asked.body, asked.headers) == {
        "type": "order.created",
        "timestamp": published.published_at.ToDatetime().isoformat() + "Z",
        "data": {"order": 7},
    }
    assert asked.headers["webhook-id"] == delivery.id
    assert signatures(asked.headers) == 1
    (delivery,) = await deliveries_of(tasks, made.webhook.id)
    assert (delivery.status, delivery.attempts, delivery.last_status) == (DELIVERED, 1, 204)
    assert delivery.delivered_at.ToDatetime() == tasks.clock.now().replace(tzinfo=None)
    assert not delivery.HasField("next_attempt_at")
    assert not await deliveries_of(tasks, other.webhook.id)


async def test_what_fails_is_sent_again_under_the_same_id_until_it_succeeds(tasks: Tasks, server: HttpServer) -> None:
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    await publish(tasks)
    server.answers["/hook"] = said(500, b"not today")
    await deliver_all(tasks)
    (delivery,) = await deliveries_of(tasks, webhook_id)
    assert (delivery.status, delivery.attempts, delivery.last_status) == (PENDING, 1, 500)
    assert delivery.last_error == "answered 500: not today"
    wait = delivery.next_attempt_at.ToDatetime() - tasks.clock.now().replace(tzinfo=None)
    assert 5 <= wait.total_seconds() <= 6
    tasks.clock.advance(seconds=4)
    await deliver_all(tasks)
    assert len(server.asked) == 1
    tasks.clock.advance(seconds=2)
    server.answers["/hook"] = said(200)
    await deliver_all(tasks)
    first, second = server.asked
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == delivery.id
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 6
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    (delivery,) = await deliveries_of(tasks, webhook_id)
    assert (delivery.status, delivery.attempts, delivery.last_error) == (DELIVERED, 2, "")


async def test_after_all_attempts_it_is_dead_until_somebody_asks(tasks: Tasks, server: HttpServer) -> None:
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    await publish(tasks)
    server.answers["/hook"] = said(302, location=server.url("/elsewhere"))
    for _ in range(MAX_ATTEMPTS + 2):
        await deliver_all(tasks)
        tasks.clock.advance(hours=30)
    assert len(server.asked) == MAX_ATTEMPTS
    (delivery,) = await deliveries_of(tasks, webhook_id, status=DEAD)
    assert (delivery.attempts, delivery.last_status) == (MAX_ATTEMPTS, 302)
    assert delivery.last_error == "answered 302, and redirects are not followed"
    assert not await deliveries_of(tasks, webhook_id, status=PENDING)

    server.answers["/hook"] = said(200)
    request = pb.RedeliverWebhookDeliveryRequest(webhook_id=webhook_id, delivery_id=delivery.id)
    again = (await webhook_admin(tasks).RedeliverWebhookDelivery(request)).delivery
    assert (again.id, again.status, again.attempts) == (delivery.id, PENDING, 0)
    await deliver_all(tasks)
    assert {asked.headers["webhook-id"] for asked in server.asked} == {delivery.id}
    assert [one.attempts for one in await deliveries_of(tasks, webhook_id, status=DELIVERED)] == [1]


async def test_what_was_delivered_can_be_delivered_again(tasks: Tasks, server: HttpServer) -> None:
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    await publish(tasks)
    await deliver_all(tasks)
    (delivery,) = await deliveries_of(tasks, webhook_id)
    request = pb.RedeliverWebhookDeliveryRequest(webhook_id=webhook_id, delivery_id=delivery.id, request_id="key")
    admin = webhook_admin(tasks)
    for _ in range(2):
        await admin.RedeliverWebhookDelivery(request)
        await deliver_all(tasks)
    assert [asked.headers["webhook-id"] for asked in server.asked] == [delivery.id] * 2
    entry = (await audited_changes(tasks))[-1]
    assert (entry["action"], entry["request_id"]) == ("webhook.redeliver", "key")
    assert entry["before"] == {"delivery_id": delivery.id, "status": "delivered", "attempts": 1}


async def test_all_that_is_dead_is_delivered_again_batch_by_batch(
    tasks: Tasks, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "REDELIVERED_AT_ONCE", 2)
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    server.answers["/hook"] = said(410)
    for _ in range(3):
        await publish(tasks)
        await deliver_all(tasks)
        await change(tasks, webhook_id, enabled=True)
    server.answers["/hook"] = said(200)
    await publish(tasks)
    await deliver_all(tasks)
    dead = [one.id for one in await deliveries_of(tasks, webhook_id, status=DEAD)]
    admin, request = webhook_admin(tasks), pb.RedeliverWebhookRequest(webhook_id=webhook_id)
    first = await admin.RedeliverWebhook(request)
    assert (first.redelivered, first.complete) == (2, False)
    assert [one.id for one in await deliveries_of(tasks, webhook_id, status=PENDING)] == dead[:2]
    second = await admin.RedeliverWebhook(request)
    assert (second.redelivered, second.complete) == (1, True)
    await deliver_all(tasks)
    assert len(await deliveries_of(tasks, webhook_id, status=DELIVERED)) == 4
    assert (await audited_changes(tasks))[-1]["after"] == {"redelivered": 1}


async def test_a_receiver_that_is_gone_gets_nothing_any_more(tasks: Tasks, server: HttpServer) -> None:
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    await publish(tasks)
    server.answers["/hook"] = said(410)
    await deliver_all(tasks)
    assert not (await read(tasks, webhook_id)).enabled
    assert [one.status for one in await deliveries_of(tasks, webhook_id)] == [DEAD]
    entry = (await audited_changes(tasks))[-1]
    assert (entry["action"], entry["actor"], entry["after"]) == ("webhook.disable", "webhooks", {"enabled": False})
    await publish(tasks)
    await deliver_all(tasks)
    assert len(server.asked) == len(await deliveries_of(tasks, webhook_id)) == 1


async def test_what_is_pending_waits_until_the_webhook_is_enabled_again(tasks: Tasks, server: HttpServer) -> None:
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    await publish(tasks)
    await change(tasks, webhook_id, enabled=False)
    await publish(tasks)
    await deliver_all(tasks)
    assert not server.asked
    await change(tasks, webhook_id, enabled=True)
    await deliver_all(tasks)
    assert [one.status for one in await deliveries_of(tasks, webhook_id)] == [DELIVERED]


@pytest.mark.parametrize(("seconds", "waits"), [(60, 60), (1, 5), (9999, 3600)])
async def test_a_receiver_may_ask_for_time(tasks: Tasks, server: HttpServer, seconds: int, waits: int) -> None:
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    await publish(tasks)
    server.answers["/hook"] = said(429, retry_after=str(seconds))
    await deliver_all(tasks)
    (delivery,) = await deliveries_of(tasks, webhook_id)
    wait = delivery.next_attempt_at.ToDatetime() - tasks.clock.now().replace(tzinfo=None)
    assert waits <= wait.total_seconds() <= max(waits, 6)


async def test_a_slow_receiver_keeps_no_other_one_waiting(tasks: Tasks, server: HttpServer) -> None:
    slow = (await webhook_for(tasks, server.url("/slow"))).webhook.id
    fast = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    server.answers["/slow"] = falls_silent_after(b"")
    for _ in range(30):
        await publish(tasks)
    deliverer = tasks.service.deliverer

    async def has_all() -> bool:
        await deliverer.step()
        assert deliverer.under_way <= 2 * loop.EACH_AT_ONCE
        return len(received(server)) == 30 and len(await deliveries_of(tasks, fast, status=DELIVERED)) == 30

    await await_until(has_all)
    assert len(received(server, "/slow")) == loop.EACH_AT_ONCE
    assert {one.status for one in await deliveries_of(tasks, slow)} == {PENDING}


async def test_there_is_room_for_everybody_whoever_came_first(
    tasks: Tasks, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "AT_ONCE", 2)
    monkeypatch.setattr(webhook_sender, "TIMEOUT_SECONDS", 0.3)
    for number in range(3):
        await webhook_for(tasks, server.url(f"/slow{number}"))
        server.answers[f"/slow{number}"] = falls_silent_after(b"")
    fast = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    for _ in range(20):
        await publish(tasks)

    async def has_some() -> bool:
        await tasks.service.deliverer.step()
        assert tasks.service.deliverer.under_way <= 2
        return len(await deliveries_of(tasks, fast, status=DELIVERED)) >= 4

    await await_until(has_some)
    assert len(server.asked) <= 40


async def test_where_a_name_leads_is_judged_whenever_something_is_sent(tasks: Tasks, server: HttpServer) -> None:
    url = f"https://hooks.example:{server.port}/hook"
    webhook_id = (await webhook_for(tasks, url)).webhook.id
    resolver = RebindingResolver(["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["169.254.169.254"])
    deliverer = Deliverer(tasks.database, WebhookSender(Egress(Guard(resolver=resolver))))
    await publish(tasks)
    for _ in range(3):
        await deliver_all(tasks, deliverer)
        (delivery,) = await deliveries_of(tasks, webhook_id)
        assert (delivery.status, delivery.HasField("last_status")) == (PENDING, False)
        assert delivery.last_error.startswith("is refused: only public addresses over https")
        tasks.clock.advance(hours=1)
    assert resolver.asked == ["hooks.example"] * 3
    assert server.connections == 0


async def test_nobody_listens(tasks: Tasks, server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    webhook_id = (await webhook_for(tasks, "http://127.0.0.1:1/a-secret-path")).webhook.id
    await publish(tasks)
    for _ in range(MAX_ATTEMPTS):
        await deliver_all(tasks)
        tasks.clock.advance(hours=30)
    (delivery,) = await deliveries_of(tasks, webhook_id)
    assert (delivery.status, delivery.last_error) == (DEAD, "no connection: connection refused")
    (record,) = [record for record in caplog.records if record.message == "webhook_delivery_dead"]
    assert record.__dict__["delivery_id"] == delivery.id
    assert "a-secret-path" not in caplog.text


async def test_two_replicas_deliver_each_event_once(tasks: Tasks, server: HttpServer) -> None:
    webhooks = [(await webhook_for(tasks, server.url("/hook"))).webhook.id for _ in range(4)]
    for _ in range(10):
        await publish(tasks)
    replicas = tasks.service.deliverer, another(tasks)
    await asyncio.gather(*(deliver_all(tasks, one) for one in replicas))
    sent = [asked.headers["webhook-id"] for asked in server.asked]
    assert len(sent) == len(set(sent)) == 40
    for webhook_id in webhooks:
        assert [one.attempts for one in await deliveries_of(tasks, webhook_id, status=DELIVERED)] == [1] * 10


async def test_what_a_lost_replica_had_is_sent_by_another_one(tasks: Tasks, server: HttpServer) -> None:
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    await publish(tasks)
    (lost,) = await tasks.database.transact(
        lambda connection, clock: operations.claim(connection, {webhook_id: 2}, clock)
    )
    await deliver_all(tasks)
    assert not server.asked
    tasks.clock.advance(seconds=operations.LEASE.total_seconds())
    await deliver_all(tasks)
    (asked,) = server.asked
    assert asked.headers["webhook-id"] == lost.delivery_id
    # Whatever it says now comes too late.
    late = await tasks.database.transact(
        lambda connection, clock: operations.record(connection, lost, Answered(500, "answered 500"), clock)
    )
    assert late is operations.Outcome.LOST
    (delivery,) = await deliveries_of(tasks, webhook_id)
    assert (delivery.status, delivery.attempts, delivery.last_error) == (DELIVERED, 2, "")


async def test_what_cannot_be_recorded_is_sent_again(
    tasks: Tasks, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    await publish(tasks)
    with monkeypatch.context() as patch:

        def fail(*_: Any) -> None:
            raise Unavailable("the database is away")

        patch.setattr(loop, "_record", fail)
        await deliver_all(tasks)
    assert [one.status for one in await deliveries_of(tasks, webhook_id)] == [PENDING]
    tasks.clock.advance(minutes=1)
    await deliver_all(tasks)
    assert len({asked.headers["webhook-id"] for asked in server.asked}) == 1
    assert [one.status for one in await deliveries_of(tasks, webhook_id)] == [DELIVERED]


async def test_a_service_that_stops_gives_up_what_takes_too_long(
    tasks: Tasks, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_STOP_SECONDS", 0.1)
    webhook_id = (await webhook_for(tasks, server.url("/slow"))).webhook.id
    server.answers["/slow"] = falls_silent_after(b"")
    await publish(tasks)
    deliverer = another(tasks)
    await deliverer.step()
    await await_until(lambda: server.asked)
    await deliverer.stop()
    assert deliverer.under_way == 0
    assert [one.status for one in await deliveries_of(tasks, webhook_id)] == [PENDING]


async def test_a_run_that_only_a_webhook_waits_for_is_told_and_noted_once(tasks: Tasks, server: HttpServer) -> None:
    await finished_run(tasks)
    assert not await events_of(tasks)
    webhook_id = (await webhook_for(tasks, server.url("/hook"), "run.*")).webhook.id
    run_id = await finished_run(tasks)
    await dispatch_all(tasks)
    server.answers["/hook"] = said(500)
    await deliver_all(tasks)
    assert not (await tasks.run(run_id)).HasField("webhook_notified_at")
    tasks.clock.advance(minutes=1)
    server.answers["/hook"] = said(200)
    await deliver_all(tasks)
    told_at = tasks.clock.now().replace(tzinfo=None)
    assert orjson.loads(server.asked[-1].body)["type"] == "run.succeeded"
    assert orjson.loads(server.asked[-1].body)["data"]["run_id"] == run_id
    run = await tasks.run(run_id)
    assert run.webhook_notified_at.ToDatetime() == told_at
    assert run.updated_at.ToDatetime() == told_at
    tasks.clock.advance(minutes=1)
    (delivery,) = await deliveries_of(tasks, webhook_id)
    request = pb.RedeliverWebhookDeliveryRequest(webhook_id=webhook_id, delivery_id=delivery.id)
    await webhook_admin(tasks).RedeliverWebhookDelivery(request)
    await deliver_all(tasks)
    assert (await tasks.run(run_id)).webhook_notified_at.ToDatetime() == told_at


async def test_a_run_that_waits_for_approval_is_noted_too(tasks: Tasks, server: HttpServer) -> None:
    await webhook_for(tasks, server.url("/hook"), "run.awaiting_approval")
    run_id = await tasks.run_now((await tasks.create()).id)
    await ApprovalServiceStub(tasks.channel(["admin"])).RequestApproval(RequestApprovalRequest(run_id=run_id))
    await dispatch_all(tasks)
    await deliver_all(tasks)
    assert [orjson.loads(asked.body)["data"]["run_id"] for asked in server.asked] == [run_id]
    assert (await tasks.run(run_id)).HasField("webhook_notified_at")


async def test_a_reported_run_is_noted_as_others_are(tasks: Tasks, server: HttpServer) -> None:
    await webhook_for(tasks, server.url("/hook"), "run.succeeded")
    run = await reporter(tasks).report(status=SUCCEEDED)
    await dispatch_all(tasks)
    await deliver_all(tasks)
    assert (await tasks.run(run.id)).HasField("webhook_notified_at")


async def test_an_event_that_only_mentions_a_run_is_not_noted_on_it(tasks: Tasks, server: HttpServer) -> None:
    run_id = await finished_run(tasks)
    await webhook_for(tasks, server.url("/hook"))
    await publish(tasks, payload={"run_id": run_id})
    await deliver_all(tasks)
    assert len(server.asked) == 1
    assert not (await tasks.run(run_id)).HasField("webhook_notified_at")


@pytest.mark.parametrize("topics", [["*"], ["**", "*.succeeded"], ["run.failed", "order.*"], ["run"]])
async def test_who_waits_for_something_else_has_nothing_stored(
    tasks: Tasks, server: HttpServer, topics: Sequence[str]
) -> None:
    await webhook_for(tasks, server.url("/hook"), *topics)
    await webhook_for(tasks, server.url("/hook"), "run.succeeded", enabled=False)
    await finished_run(tasks)
    assert not await events_of(tasks)


async def test_an_event_for_many_tasks_is_sent_once_when_all_are_matched(
    tasks: Tasks, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "BATCH", 1)
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    for _ in range(3):
        await waiting_for(tasks, "order.*")
    assert not (await publish(tasks)).complete
    assert not await deliveries_of(tasks, webhook_id)
    await dispatch_all(tasks)
    await deliver_all(tasks)
    assert len(server.asked) == 1


async def test_a_replay_is_for_webhooks_unless_it_is_for_one_task(tasks: Tasks, server: HttpServer) -> None:
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    task, event = await waiting_for(tasks, "order.*"), await publish(tasks)
    await replay(tasks, event.event_id, task.id)
    assert len(await deliveries_of(tasks, webhook_id)) == 1
    anew = await replay(tasks, event.event_id)
    assert [one.event_id for one in await deliveries_of(tasks, webhook_id)] == [event.event_id, anew.event_id]


async def test_for_a_day_the_old_secret_signs_too(tasks: Tasks, server: HttpServer) -> None:
    made = await webhook_for(tasks, server.url("/hook"))
    request = pb.RotateWebhookSecretRequest(webhook_id=made.webhook.id)
    rotated = await webhook_admin(tasks).RotateWebhookSecret(request)
    until = (tasks.clock.now() + timedelta(hours=24)).replace(tzinfo=None)
    assert rotated.webhook.previous_secret_until.ToDatetime() == until
    assert await read(tasks, made.webhook.id) == rotated.webhook
    await publish(tasks)
    await deliver_all(tasks)
    (asked,) = server.asked
    for secret in (made.secret, rotated.secret):
        Webhook(secret).verify(asked.body, asked.headers)
    tasks.clock.advance(hours=24)
    await publish(tasks)
    await deliver_all(tasks)
    assert signatures(server.asked[1].headers) == 1


async def test_a_second_rotation_ends_the_oldest_secret(tasks: Tasks, server: HttpServer) -> None:
    made = await webhook_for(tasks, server.url("/hook"))
    request = pb.RotateWebhookSecretRequest(webhook_id=made.webhook.id)
    newer, newest = [(await webhook_admin(tasks).RotateWebhookSecret(request)).secret for _ in range(2)]
    await publish(tasks)
    await deliver_all(tasks)
    (asked,) = server.asked
    for secret in (newer, newest):
        Webhook(secret).verify(asked.body, asked.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(made.secret).verify(asked.body, asked.headers)


async def test_deliveries_go_with_their_events_and_pending_ones_with_their_webhook(
    tasks: Tasks, server: HttpServer
) -> None:
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    await publish(tasks)
    await deliver_all(tasks)
    tasks.clock.advance(hours=25)
    await publish(tasks)
    await EventServiceStub(tasks.channel(["admin"])).PruneEvents(PruneEventsRequest())
    assert [one.status for one in await deliveries_of(tasks, webhook_id)] == [PENDING]
    deleted = await webhook_admin(tasks).DeleteWebhook(pb.DeleteWebhookRequest(webhook_id=webhook_id))
    assert deleted.pending_deliveries == 1
    assert await tasks.count(tables.webhook_deliveries) == 0
    await deliver_all(tasks)
    assert len(server.asked) == 1


async def test_old_events_with_many_deliveries_are_deleted_a_few_at_a_time(
    tasks: Tasks, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_MAX_DELIVERIES", 2)
    for _ in range(2):
        await webhook_for(tasks, server.url("/hook"))
    for _ in range(5):
        await publish(tasks)
    tasks.clock.advance(hours=25)
    one = await tasks.database.transact(
        lambda connection, clock: retention.prune_events(connection, tasks.clock.now(), 1000, clock)
    )
    assert (one.events, one.complete) == (1, False)
    assert await tasks.count(tables.webhook_deliveries) == 8


async def test_deliveries_come_in_pages(tasks: Tasks, server: HttpServer) -> None:
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    for _ in range(5):
        await publish(tasks)
    await deliver_all(tasks)
    await publish(tasks)
    expected = [one.id for one in await deliveries_of(tasks, webhook_id)]
    for filters, ids in (({}, expected), ({"status": DELIVERED}, expected[:5]), ({"status": DEAD}, [])):
        request = pb.ListWebhookDeliveriesRequest(webhook_id=webhook_id, limit=2, **filters)  # type: ignore[arg-type]
        seen: list[str] = []
        while True:
            page = await webhook_admin(tasks).ListWebhookDeliveries(request)
            seen += [one.id for one in page.items]
            if not page.has_more:
                break
            request.cursor = page.next_cursor
        assert seen == ids[::-1]


async def test_the_delivery_of_one_event_is_found(tasks: Tasks, server: HttpServer) -> None:
    webhook_id = (await webhook_for(tasks, server.url("/hook"))).webhook.id
    await webhook_for(tasks, server.url("/other"))
    for _ in range(3):
        await publish(tasks)
    wanted = (await deliveries_of(tasks, webhook_id))[1]
    for event_id in (wanted.event_id, wanted.event_id.upper()):
        assert await deliveries_of(tasks, webhook_id, event_id=event_id) == [wanted]
    assert await deliveries_of(tasks, webhook_id, event_id=wanted.event_id, status=DEAD) == []
    assert await deliveries_of(tasks, webhook_id, event_id=wanted.id) == []
