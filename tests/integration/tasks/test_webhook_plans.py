"""However much is or was delivered, little is read to find what is due."""

import re
from datetime import timedelta
from functools import partial

import psycopg
import pytest
from sqlalchemy import Connection, insert, select

from services.chassis.clock import Clock
from services.chassis.ids import id_at, new_id
from services.tasks.models.webhook import DeliveryStatus, WebhookDelivery
from services.tasks.operations import webhook_delivery as operations
from services.tasks.store import event as event_store
from services.tasks.store import tables
from services.tasks.store import webhook_delivery as store
from tests.integration.tasks.events import publish
from tests.integration.tasks.planning import plans
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.webhooks import webhook_for

_EVENTS = 3000
_URL = "https://hooks.example"


def _fill(connection: Connection, clock: Clock) -> None:
    """Many events, of which each is pending for one webhook, and dead or delivered for two others."""
    event = connection.execute(select(tables.events)).one()._asdict()
    delivery = connection.execute(select(tables.webhook_deliveries).limit(1)).one()._asdict()
    webhooks = list(connection.execute(select(tables.webhooks.c.id)).scalars())
    events, deliveries = [], []
    for number in range(_EVENTS):
        at = clock.now() - timedelta(hours=48, seconds=_EVENTS - number)
        events.append(event | {"id": id_at(at), "published_at": at})
        states = [DeliveryStatus.PENDING, DeliveryStatus.DEAD, DeliveryStatus.DELIVERED]
        for webhook_id, status in zip(webhooks, states, strict=False):
            deliveries.append(
                delivery
                | {"id": new_id(), "webhook_id": webhook_id, "event_id": events[-1]["id"], "status": status.value}
                | {"next_attempt_at": at if status is DeliveryStatus.PENDING else None}
                | {"delivered_at": at if status is DeliveryStatus.DELIVERED else None}
            )
    connection.execute(insert(tables.events), events)
    connection.execute(insert(tables.webhook_deliveries), deliveries)


@pytest.fixture
async def full(tasks: Tasks, engine: str, request: pytest.FixtureRequest) -> Tasks:
    for _ in range(3):
        await webhook_for(tasks, _URL)
    await publish(tasks)
    await tasks.database.transact(_fill)
    if engine == "postgres":
        with psycopg.connect(request.getfixturevalue("postgres_database"), autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE) tasks.events, tasks.webhooks, tasks.webhook_deliveries")
    return tasks


def assert_little_is_read(found: str, most: float) -> None:
    seen = re.search(r"Seq Scan on webhook_deliveries|SCAN webhook_deliveries(?! USING (COVERING )?INDEX)", found)
    assert not seen, found
    handled = re.findall(r"(?:rows=|Rows Removed by \w+(?: \w+)*: )(\d+(?:\.\d+)?)", found)
    assert max((float(rows) for rows in handled), default=0) <= most, found


async def test_what_is_due_is_found_by_a_look_for_each_webhook(full: Tasks) -> None:
    for found in await plans(full, operations.due_webhooks):
        assert "ix_webhook_deliveries_due" in found
        assert_little_is_read(found, 3)
    (due, *_) = await full.database.read(operations.due_webhooks)
    for found in await plans(full, lambda connection, clock: operations.claim(connection, {due: 2}, clock)):
        assert_little_is_read(found, 6)


async def test_the_oldest_that_is_pending_is_found_by_a_look_for_each_webhook(full: Tasks) -> None:
    for found in await plans(full, lambda connection, clock: store.oldest_pending(connection)):
        assert_little_is_read(found, 3)


async def test_a_page_of_deliveries_is_read_from_its_end(full: Tasks) -> None:
    for webhook_id in await full.database.read(_webhook_ids):
        for status in (None, *DeliveryStatus):
            for found in await plans(full, partial(_page, webhook_id, status)):
                assert_little_is_read(found, 51)


async def test_the_delivery_of_one_event_is_found_by_an_index(full: Tasks) -> None:
    for event_id, webhook_id in await full.database.read(_some_deliveries):
        for status in (None, *DeliveryStatus):
            one = partial(_of_event, webhook_id, status, event_id)
            for found in await plans(full, one):
                assert "uq_webhook_deliveries_event_id" in found
                assert_little_is_read(found, 3)


def _some_deliveries(connection: Connection, clock: Clock) -> list[tuple[str, str]]:
    columns = tables.webhook_deliveries.c
    query = select(columns.event_id, columns.webhook_id).order_by(columns.id.desc()).limit(3)
    return [(row.event_id, row.webhook_id) for row in connection.execute(query)]


def _of_event(
    webhook_id: str, status: DeliveryStatus | None, event_id: str, connection: Connection, clock: Clock
) -> list[WebhookDelivery]:
    return store.list_deliveries(connection, webhook_id, status, event_id, limit=51)


def _page(
    webhook_id: str, status: DeliveryStatus | None, connection: Connection, clock: Clock
) -> list[WebhookDelivery]:
    return store.list_deliveries(connection, webhook_id, status, limit=51)


async def test_what_goes_with_old_events_is_counted_by_an_index(full: Tasks) -> None:
    cutoff = full.clock.now() - timedelta(hours=24)
    for found in await plans(full, lambda connection, clock: event_store.delete_events(connection, cutoff, 100, 150)):
        assert_little_is_read(found, 600)


async def test_what_is_dead_is_found_among_what_is_not(full: Tasks) -> None:
    for webhook_id in await full.database.read(_webhook_ids):
        oldest = partial(_oldest_dead, webhook_id)
        for found in await plans(full, oldest):
            assert_little_is_read(found, 101)


def _webhook_ids(connection: Connection, clock: Clock) -> list[str]:
    return list(connection.execute(select(tables.webhooks.c.id)).scalars())


def _oldest_dead(webhook_id: str, connection: Connection, clock: Clock) -> list[str]:
    return store.oldest_dead(connection, webhook_id, 101)
