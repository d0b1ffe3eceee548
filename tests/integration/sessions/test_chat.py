"""The chat of people, the orchestrator and its agents."""

from typing import Any

import pytest
from baton.sessions.v1 import chat_pb2
from baton.sessions.v1.agent_pb2 import Agent
from baton.sessions.v1.agent_service_pb2 import ArchiveAgentRequest
from baton.sessions.v1.chat_service_pb2 import ListChatMessagesRequest, LoadChatRequest, SendChatMessageRequest
from baton.sessions.v1.orchestrator_service_pb2 import EnsureOrchestratorRequest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from services.chassis.errors import InvalidArgument, NotFound, PermissionDenied
from services.chassis.ids import new_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import to_timestamp
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions

USER, BOSS, AGENT = "CHAT_PARTY_USER", "CHAT_PARTY_ORCHESTRATOR", "CHAT_PARTY_AGENT"


async def orchestrator(sessions: Sessions) -> Agent:
    request = EnsureOrchestratorRequest(scopes=["agents:admin"])
    return (await sessions.orchestration(["admin"]).EnsureOrchestrator(request)).orchestrator


async def sent(
    sessions: Sessions, message: str = "hello", *, by: str | None = None, **fields: Any
) -> chat_pb2.ChatMessage:
    request = SendChatMessageRequest(message=message, **fields)
    scopes = ["logs:write"] if by else ["admin"]
    return (await sessions.chat(scopes, by).SendChatMessage(request)).message


async def listed(sessions: Sessions, **fields: Any) -> list[str]:
    """All pages, as what was said."""
    reader, items, request = sessions.chat(["logs:read"]), [], ListChatMessagesRequest(limit=2, **fields)
    while True:
        page = await reader.ListChatMessages(request)
        items += [item.message for item in page.items]
        if not page.has_more:
            return items
        request.cursor = page.next_cursor


async def test_a_person_writes_to_the_orchestrator_unless_it_says_otherwise(sessions: Sessions) -> None:
    boss, person = await orchestrator(sessions), new_id()
    message = await sent(sessions, "fix it", by=person, summary="fix", metadata=to_struct({"a": 1}))
    assert (message.sender_type, message.receiver_type) == (chat_pb2.CHAT_PARTY_USER, chat_pb2.CHAT_PARTY_ORCHESTRATOR)
    assert (message.orchestrator_agent_id, message.sent_by) == (boss.id, person)
    assert (message.message, message.summary, from_struct(message.metadata)) == ("fix it", "fix", {"a": 1})
    assert not message.HasField("agent_id")
    assert message.created_at == to_timestamp(sessions.clock.now())


async def test_who_talks_to_an_agent_says_to_which(sessions: Sessions) -> None:
    boss, agent = await orchestrator(sessions), await sessions.agent()
    told = await sent(sessions, by=boss.id, sender_type=BOSS, receiver_type=AGENT, agent_id=agent.id.upper())
    assert told.agent_id == agent.id
    answer = await sent(sessions, by=agent.id, sender_type=AGENT, receiver_type=BOSS, agent_id=agent.id)
    assert (answer.agent_id, answer.sent_by) == (agent.id, agent.id)
    await sent(sessions, by=agent.id, sender_type=AGENT, receiver_type=USER, agent_id=agent.id)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"sender_type": USER, "receiver_type": USER}, "receiver_type", "must be another side"),
        ({"sender_type": BOSS}, "receiver_type", "must be another side"),
        ({"receiver_type": AGENT}, "agent_id", "is required"),
        ({"agent_id": new_id()}, "agent_id", "neither side is an agent"),
        ({"receiver_type": AGENT, "agent_id": new_id()}, "agent_id", "is no agent"),
        ({"orchestrator_agent_id": new_id()}, "orchestrator_agent_id", "is not the orchestrator"),
        ({"message": ""}, "message", "at least 1"),
        ({"message": "m" * 65_537}, "message", "at most 65536"),
        ({"message": "a\x00"}, "message", "NUL"),
        ({"summary": "s" * 2001}, "summary", "at most 2000"),
        ({"metadata": to_struct({"a": "x" * 17_000})}, "metadata", "at most 16384"),
        ({"sender_type": 9, "receiver_type": BOSS}, "sender_type", "one of user, orchestrator, agent"),
        ({"agent_id": "7"}, "agent_id", "UUID"),
    ],
)
async def test_a_message_outside_the_rules_is_refused(
    sessions: Sessions, fields: dict[str, Any], field: str, words: str
) -> None:
    await orchestrator(sessions)
    with pytest.raises(InvalidArgument, match=words) as refused:
        await sent(sessions, **{"message": "hello"} | fields)
    assert field in [violation.field for violation in refused.value.violations]
    assert await sessions.count(tables.chat_messages) == 0


async def test_the_orchestrator_takes_no_side_of_an_agent(sessions: Sessions) -> None:
    boss = await orchestrator(sessions)
    with pytest.raises(InvalidArgument, match="the orchestrator itself"):
        await sent(sessions, receiver_type=AGENT, agent_id=boss.id)


async def test_nobody_speaks_for_somebody_else(sessions: Sessions) -> None:
    boss, one, other = await orchestrator(sessions), await sessions.agent(), await sessions.agent()
    for said in (
        {"by": one.id, "sender_type": AGENT, "receiver_type": BOSS, "agent_id": other.id},
        {"by": one.id, "sender_type": BOSS, "receiver_type": USER},
        {"by": boss.id, "sender_type": AGENT, "receiver_type": BOSS, "agent_id": one.id},
    ):
        with pytest.raises(PermissionDenied) as refused:
            await sent(sessions, **said)
        assert refused.value.reason == "SCOPE_MISSING"
    assert await sessions.count(tables.chat_messages) == 0
    # Who administers agents may, and it is on record who did.
    message = await sent(sessions, sender_type=BOSS, receiver_type=USER)
    assert message.sent_by not in (boss.id, one.id, other.id)


async def test_without_an_orchestrator_there_is_no_chat(sessions: Sessions) -> None:
    for call in (sent(sessions), sessions.chat().LoadChat(LoadChatRequest())):
        with pytest.raises(NotFound) as refused:
            await call
        assert refused.value.reason == "ORCHESTRATOR_NOT_FOUND"
    assert await listed(sessions) == []


async def test_the_database_itself_keeps_the_rule(sessions: Sessions) -> None:
    boss = await orchestrator(sessions)
    good = {
        "id": new_id(),
        "orchestrator_agent_id": boss.id,
        "message": "x",
        "summary": "",
        "sent_by": boss.id,
        "created_at": sessions.clock.now(),
    }
    broken = [
        {"sender_type": "user", "receiver_type": "agent", "agent_id": None},
        {"sender_type": "user", "receiver_type": "orchestrator", "agent_id": boss.id},
        {"sender_type": "user", "receiver_type": "user", "agent_id": None},
        {"sender_type": "nobody", "receiver_type": "user", "agent_id": None},
    ]
    for position, sides in enumerate(broken):
        statement = insert(tables.chat_messages).values(**good, **sides, position=position)
        with pytest.raises(IntegrityError):
            await sessions.database.transact(lambda connection, clock: connection.execute(statement))  # noqa: B023


async def test_each_filter_finds_its_own(sessions: Sessions) -> None:
    boss, agent = await orchestrator(sessions), await sessions.agent()
    await sent(sessions, "one")
    await sent(sessions, "two", sender_type=BOSS, receiver_type=AGENT, agent_id=agent.id)
    sessions.clock.advance(seconds=60)
    middle = to_timestamp(sessions.clock.now())
    await sent(sessions, "three", sender_type=AGENT, receiver_type=BOSS, agent_id=agent.id)
    await sessions.caller(["admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=boss.id))
    await orchestrator(sessions)
    await sent(sessions, "four")
    assert await listed(sessions) == ["four", "three", "two", "one"]
    assert await listed(sessions, orchestrator_agent_id=boss.id.upper()) == ["three", "two", "one"]
    assert await listed(sessions, agent_id=agent.id) == ["three", "two"]
    assert await listed(sessions, sender_type=USER) == ["four", "one"]
    assert await listed(sessions, receiver_type=AGENT) == ["two"]
    assert await listed(sessions, since=middle) == ["four", "three"]
    assert await listed(sessions, until=middle) == ["two", "one"]


async def test_the_end_of_a_chat_is_loaded_in_order(sessions: Sessions) -> None:
    boss = await orchestrator(sessions)
    for number in range(5):
        await sent(sessions, str(number))
    reader = sessions.chat(["logs:read"])
    loaded = await reader.LoadChat(LoadChatRequest(limit=3))
    assert ([message.message for message in loaded.messages], loaded.turn_count) == (["2", "3", "4"], 5)
    await sessions.caller(["admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=boss.id))
    # Of an archived one it is there all the same, and nobody adds to it.
    loaded = await reader.LoadChat(LoadChatRequest(orchestrator_agent_id=boss.id))
    assert len(loaded.messages) == 5
    with pytest.raises(InvalidArgument, match="is archived"):
        await sent(sessions, orchestrator_agent_id=boss.id)
    for fields in ({"orchestrator_agent_id": new_id()}, {"limit": 0}, {"limit": 201}):
        with pytest.raises(InvalidArgument):
            await reader.LoadChat(LoadChatRequest(**fields))


async def test_a_message_is_sent_once_and_audited_without_its_words(sessions: Sessions) -> None:
    boss = await orchestrator(sessions)
    person = sessions.chat(["logs:write"], new_id())
    request = SendChatMessageRequest(message="a secret plan", request_id="key")
    first = await person.SendChatMessage(request)
    assert await person.SendChatMessage(request) == first
    assert await sessions.count(tables.chat_messages) == 1
    [audited] = [one for one in await sessions.audited() if one["action"] == "chat_message.send"]
    assert audited["resource"] == f"chat_message/{first.message.id}"
    assert (audited["actor"], audited["request_id"]) == (first.message.sent_by, "key")
    assert (audited["after"]["sender_type"], audited["after"]["orchestrator_agent_id"]) == ("user", boss.id)
    assert "secret plan" not in str(audited)
    query = select(tables.chat_messages.c.message)
    kept = await sessions.database.read(lambda connection, clock: connection.execute(query).scalars().all())
    assert kept == ["a secret plan"]
