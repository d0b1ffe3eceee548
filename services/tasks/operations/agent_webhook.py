"""The webhooks of agents: what the sessions service tells of their `webhook_url`."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.ids import is_uuid, new_id
from services.chassis.outbox import Message, MessageRefused
from services.tasks.models.webhook import AGENT_TOPICS, Webhook
from services.tasks.operations.webhook import locked, new_secret
from services.tasks.store import webhook as store


def take_agent_webhooks(connection: Connection, clock: Clock, source: str, messages: Sequence[Message]) -> None:
    """Has the newest message about each agent hold; one that comes late changes nothing. Raises MessageRefused.

    An agent that has no URL any more keeps its webhook, disabled: with it goes the list of its deliveries.
    """
    for message in messages:
        match message.payload:
            case {"agent_id": str(agent_id), "url": None | str() as url} if source == "sessions" and is_uuid(agent_id):
                _take(connection, clock, message.id, agent_id, url)
            case _:
                raise MessageRefused(message.id, "has not the fields agent_id and url, or is not of sessions")


def _take(connection: Connection, clock: Clock, message_id: str, agent_id: str, url: str | None) -> None:
    known = store.webhook_of_agent(connection, agent_id)
    if known is None:
        if url is None:
            return
        webhook = _new_webhook(agent_id, url, clock)
        store.add_webhook(connection, webhook, new_secret())
        store.note_told(connection, webhook.id, message_id)
        return
    webhook_id, told_by = known
    if told_by >= message_id:
        return
    before = locked(connection, webhook_id)
    after = replace(before, url=url or before.url, enabled=url is not None, updated_at=clock.now())
    store.save_webhook(connection, after)
    store.note_told(connection, webhook_id, message_id)


def _new_webhook(agent_id: str, url: str, clock: Clock) -> Webhook:
    now = clock.now()
    return Webhook(
        id=new_id(),
        url=url,
        topics=AGENT_TOPICS,
        description="the agent's own webhook_url",
        enabled=True,
        created_by=agent_id,
        created_at=now,
        updated_at=now,
        agent_id=agent_id,
    )
