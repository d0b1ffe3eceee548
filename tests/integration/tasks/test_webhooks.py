"""Webhooks are made, read, changed and deleted; nobody ever sees a secret again."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from baton.tasks.v1 import webhook_service_pb2 as pb
from sqlalchemy import select

from services.chassis.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServiceError,
)
from services.chassis.ids import new_id
from services.tasks.operations import webhook as operations
from services.tasks.store import tables
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.running import Tasks, one_engine
from tests.integration.tasks.webhooks import change, read, webhook_admin, webhook_for

URL = "https://hooks.example/baton?key=in-the-url"


async def test_a_webhook_is_made_read_changed_and_deleted(tasks: Tasks) -> None:
    agent_id = new_id()
    admin = webhook_admin(tasks, agent_id)
    made = await admin.CreateWebhook(
        pb.CreateWebhookRequest(url=URL, topics=["run.failed", "order.*"], description="for the pager")
    )
    assert made.secret.startswith("whsec_")
    assert len(made.secret) == len("whsec_") + 44
    webhook = made.webhook
    assert (webhook.url, list(webhook.topics)) == (URL, ["run.failed", "order.*"])
    assert (webhook.description, webhook.enabled, webhook.created_by) == ("for the pager", True, agent_id)
    assert webhook.created_at.ToDatetime() == tasks.clock.now().replace(tzinfo=None)
    assert not webhook.HasField("previous_secret_until")
    assert await read(tasks, webhook.id) == webhook

    tasks.clock.advance(hours=1)
    changed = await change(tasks, webhook.id, enabled=False, topics=["a.b", "run.*"])
    assert (list(changed.topics), changed.enabled, changed.url) == (["a.b", "run.*"], False, URL)
    assert changed.updated_at.ToDatetime() == tasks.clock.now().replace(tzinfo=None)
    assert changed == await read(tasks, webhook.id)
    moved = await change(tasks, webhook.id, url="https://elsewhere.example", description="", enabled=True)
    assert (moved.url, moved.description, moved.enabled) == ("https://elsewhere.example", "", True)
    assert list(moved.topics) == ["a.b", "run.*"]

    await admin.DeleteWebhook(pb.DeleteWebhookRequest(webhook_id=webhook.id))
    assert not (await admin.ListWebhooks(pb.ListWebhooksRequest())).items
    assert [await tasks.count(table) for table in (tables.webhooks, tables.webhook_topics)] == [0, 0]


async def test_what_happens_to_webhooks_is_audited_without_the_url_s_secrets(tasks: Tasks) -> None:
    admin, webhook_id = webhook_admin(tasks), (await webhook_for(tasks, URL, description="x")).webhook.id
    await change(tasks, webhook_id, enabled=False, request_id="key")
    await change(tasks, webhook_id, enabled=False)
    await admin.RotateWebhookSecret(pb.RotateWebhookSecretRequest(webhook_id=webhook_id))
    await admin.DeleteWebhook(pb.DeleteWebhookRequest(webhook_id=webhook_id))
    audits = await audited_changes(tasks)
    assert [row["action"] for row in audits] == [
        "webhook.create", "webhook.update", "webhook.rotate_secret", "webhook.delete",
    ]  # fmt: skip
    assert {row["resource"] for row in audits} == {f"webhook/{webhook_id}"}
    told = {"origin": "https://hooks.example", "topics": ["order.*"], "description": "x", "enabled": True}
    assert audits[0]["after"] == told
    assert (audits[1]["before"], audits[1]["after"]) == (told, told | {"enabled": False})
    assert audits[1]["request_id"] == "key"
    assert audits[3]["before"] == told | {"enabled": False, "pending_deliveries": 0}
    assert "in-the-url" not in repr(audits)


async def test_a_secret_is_answered_once_and_kept_in_one_place(tasks: Tasks, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    admin = webhook_admin(tasks)
    made = await webhook_for(tasks, URL, request_id="key")
    rotated = await admin.RotateWebhookSecret(
        pb.RotateWebhookSecretRequest(webhook_id=made.webhook.id, request_id="key")
    )
    assert rotated.secret.startswith("whsec_")
    assert rotated.secret != made.secret
    for again in (
        lambda: admin.CreateWebhook(pb.CreateWebhookRequest(url=URL, topics=["order.*"], request_id="new key")),
        lambda: admin.RotateWebhookSecret(
            pb.RotateWebhookSecretRequest(webhook_id=made.webhook.id, request_id="new key")
        ),
    ):
        await again()
        with pytest.raises(Aborted) as refused:
            await again()
        assert refused.value.reason == "ANSWER_NOT_REPEATABLE"
    answers = [
        await admin.ListWebhooks(pb.ListWebhooksRequest()),
        await admin.GetWebhook(pb.GetWebhookRequest(webhook_id=made.webhook.id)),
        await admin.UpdateWebhook(pb.UpdateWebhookRequest(webhook_id=made.webhook.id, description="x")),
    ]
    stored = [
        row
        for table in tables.metadata.sorted_tables
        if table is not tables.webhooks
        for row in await tasks.database.read(
            lambda connection, clock, table=table: connection.execute(select(table)).all()
        )
    ]
    for secret in (made.secret, rotated.secret):
        bare = secret.removeprefix("whsec_")
        assert bare not in repr(answers)
        assert bare not in repr(stored)
        assert bare not in caplog.text
    assert await tasks.count(tables.webhooks) == 2


async def test_a_repeated_change_has_one_effect(tasks: Tasks) -> None:
    admin, webhook_id = webhook_admin(tasks), (await webhook_for(tasks, URL)).webhook.id
    first = await change(tasks, webhook_id, description="a", request_id="key")
    await change(tasks, webhook_id, description="b")
    request = pb.UpdateWebhookRequest(webhook_id=webhook_id, description="a", request_id="other key")
    for _ in range(2):
        await admin.UpdateWebhook(request)
    assert first.description == "a"
    assert len(await audited_changes(tasks)) == 4


@pytest.mark.parametrize(
    ("fields", "fields_at_fault"),
    [
        ({"url": "https://10.0.0.1/x"}, ["url"]),
        ({"url": "https://[fd00::1]/x"}, ["url"]),
        ({"url": "https://169.254.169.254/latest"}, ["url"]),
        ({"url": "https://user:password@hooks.example"}, ["url"]),
        ({"url": "ftp://hooks.example"}, ["url"]),
        ({"url": "https://0x7f.1/"}, ["url"]),
        ({"url": "https://hooks.example/a b"}, ["url"]),
        ({"url": "https://hooks.example/" + "a" * 2048}, ["url"]),
        ({"url": ""}, ["url"]),
        ({"topics": ["order..x", "fine", "fine"]}, ["topics[0]", "topics[2]"]),
        ({"topics": ["**.x"]}, ["topics[0]"]),
        ({"topics": [""]}, ["topics[0]"]),
        ({"topics": [f"a.n{number}" for number in range(21)]}, ["topics"]),
        ({"url": "nonsense", "topics": ["*x"]}, ["url", "topics[0]"]),
        ({"description": "x" * 501}, ["description"]),
        ({"request_id": "x" * 256}, ["request_id"]),
    ],
)
@one_engine
async def test_what_is_wrong_is_named_and_nothing_is_stored(
    tasks: Tasks, fields: dict[str, Any], fields_at_fault: list[str]
) -> None:
    webhook = (await webhook_for(tasks, URL)).webhook
    admin, given = webhook_admin(tasks), {"url": URL, "topics": ["a"], **fields}
    for attempt in (
        lambda: admin.CreateWebhook(pb.CreateWebhookRequest(**given)),
        lambda: admin.UpdateWebhook(pb.UpdateWebhookRequest(webhook_id=webhook.id, **given)),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await attempt()
        assert [violation.field for violation in refused.value.violations] == fields_at_fault
        assert "password@" not in refused.value.message
    assert await read(tasks, webhook.id) == webhook
    assert await tasks.count(tables.webhooks) == 1


@one_engine
async def test_a_webhook_needs_a_topic(tasks: Tasks) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await webhook_admin(tasks).CreateWebhook(pb.CreateWebhookRequest(url=URL))
    assert [violation.field for violation in refused.value.violations] == ["topics"]


async def test_an_unknown_webhook_is_not_found(tasks: Tasks) -> None:
    admin, webhook_id = webhook_admin(tasks), new_id()
    known = (await webhook_for(tasks, URL)).webhook.id
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: admin.GetWebhook(pb.GetWebhookRequest(webhook_id=webhook_id)),
        lambda: admin.UpdateWebhook(pb.UpdateWebhookRequest(webhook_id=webhook_id)),
        lambda: admin.DeleteWebhook(pb.DeleteWebhookRequest(webhook_id=webhook_id)),
        lambda: admin.RotateWebhookSecret(pb.RotateWebhookSecretRequest(webhook_id=webhook_id)),
        lambda: admin.ListWebhookDeliveries(pb.ListWebhookDeliveriesRequest(webhook_id=webhook_id)),
        lambda: admin.RedeliverWebhook(pb.RedeliverWebhookRequest(webhook_id=webhook_id)),
        lambda: admin.RedeliverWebhookDelivery(
            pb.RedeliverWebhookDeliveryRequest(webhook_id=webhook_id, delivery_id=new_id())
        ),
    ]
    for call in calls:
        with pytest.raises(NotFound) as refused:
            await call()
        assert refused.value.reason == "WEBHOOK_NOT_FOUND"
    with pytest.raises(NotFound) as refused:
        await admin.RedeliverWebhookDelivery(pb.RedeliverWebhookDeliveryRequest(webhook_id=known, delivery_id=new_id()))
    assert refused.value.reason == "WEBHOOK_DELIVERY_NOT_FOUND"


async def test_nothing_is_delivered_again_to_a_webhook_that_is_not_enabled(tasks: Tasks) -> None:
    admin, webhook_id = webhook_admin(tasks), (await webhook_for(tasks, URL, enabled=False)).webhook.id
    for call in (
        lambda: admin.RedeliverWebhook(pb.RedeliverWebhookRequest(webhook_id=webhook_id)),
        lambda: admin.RedeliverWebhookDelivery(
            pb.RedeliverWebhookDeliveryRequest(webhook_id=webhook_id, delivery_id=new_id())
        ),
    ):
        with pytest.raises(FailedPrecondition) as refused:
            await call()
        assert refused.value.reason == "WEBHOOK_DISABLED"


async def test_there_are_not_too_many(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "MAX_WEBHOOKS", 2)
    for _ in range(2):
        await webhook_for(tasks, URL)
    with pytest.raises(ResourceExhausted) as refused:
        await webhook_for(tasks, URL)
    assert (refused.value.reason, refused.value.metadata) == ("TOO_MANY_WEBHOOKS", {"most": "2"})


async def test_webhooks_come_in_pages_the_newest_first(tasks: Tasks) -> None:
    made = [(await webhook_for(tasks, URL, f"a.n{number}")).webhook for number in range(5)]
    admin, seen, request = webhook_admin(tasks), [], pb.ListWebhooksRequest(limit=2)
    while True:
        page = await admin.ListWebhooks(request)
        assert page.has_more == page.HasField("next_cursor")
        seen += page.items
        if not page.has_more:
            break
        request.cursor = page.next_cursor
    assert seen == made[::-1]
    for refused_list in (
        admin.ListWebhooks(pb.ListWebhooksRequest(cursor="forged")),
        admin.ListWebhookDeliveries(pb.ListWebhookDeliveriesRequest(webhook_id=made[0].id, cursor=request.cursor)),
    ):
        with pytest.raises(ServiceError) as refused:
            await refused_list
        assert refused.value.reason == "CURSOR_INVALID"
