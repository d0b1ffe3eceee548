"""What agents were told to do."""

from typing import Any

import pytest
from baton.sessions.v1 import prompt_pb2
from baton.sessions.v1.agent_service_pb2 import ArchiveAgentRequest
from baton.sessions.v1.orchestrator_service_pb2 import EnsureOrchestratorRequest
from baton.sessions.v1.prompt_service_pb2 import GetPromptRequest, ListPromptsRequest, RecordPromptRequest

from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from services.chassis.ids import new_id
from services.chassis.timestamps import to_timestamp
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions

ENGINEER, ORCHESTRATOR = "PROMPT_AUTHOR_ENGINEER", "PROMPT_AUTHOR_ORCHESTRATOR_AGENT"


async def recorded(sessions: Sessions, by: str | None = None, **fields: Any) -> prompt_pb2.Prompt:
    request = RecordPromptRequest(**{"author": ENGINEER, "prompt_text": "do it"} | fields)
    return (await sessions.prompts(["logs:write"], by).RecordPrompt(request)).prompt


async def listed(sessions: Sessions, **fields: Any) -> list[str]:
    """All pages, as the texts."""
    reader, items, request = sessions.prompts(["logs:read"]), [], ListPromptsRequest(limit=2, **fields)
    while True:
        page = await reader.ListPrompts(request)
        items += [item.prompt_text for item in page.items]
        if not page.has_more:
            return items
        request.cursor = page.next_cursor


async def test_what_is_recorded_can_be_read(sessions: Sessions) -> None:
    agent, person = await sessions.agent(), new_id()
    prompt = await recorded(
        sessions, person, agent_id=agent.id.upper(), task_slug="fix-it", summary="fix", session_id="cli-1"
    )
    assert (prompt.agent_id, prompt.task_slug, prompt.author) == (agent.id, "fix-it", prompt_pb2.PROMPT_AUTHOR_ENGINEER)
    assert (prompt.prompt_text, prompt.summary, prompt.session_id) == ("do it", "fix", "cli-1")
    assert (prompt.recorded_by, prompt.timestamp) == (person, to_timestamp(sessions.clock.now()))
    reader = sessions.prompts(["logs:read"])
    assert (await reader.GetPrompt(GetPromptRequest(prompt_id=prompt.id.upper()))).prompt == prompt
    with pytest.raises(NotFound) as refused:
        await reader.GetPrompt(GetPromptRequest(prompt_id=new_id()))
    assert refused.value.reason == "PROMPT_NOT_FOUND"


async def test_one_without_a_slug_gets_one(sessions: Sessions) -> None:
    prompt = await recorded(sessions, prompt_text="Fix the LOGIN page (it's broken)! " * 5)
    assert prompt.task_slug.startswith("fix-the-login-page-it-s-broken-fix-the-login-pa-2")
    assert len(prompt.task_slug) <= 100
    assert not prompt.HasField("agent_id")


async def test_each_filter_finds_its_own(sessions: Sessions) -> None:
    agent = await sessions.agent()
    await recorded(sessions, prompt_text="one", agent_id=agent.id)
    await recorded(sessions, prompt_text="two", task_slug="fix-it")
    sessions.clock.advance(seconds=60)
    middle = to_timestamp(sessions.clock.now())
    await recorded(sessions, prompt_text="three", session_id="cli-1")
    request = RecordPromptRequest(author=ORCHESTRATOR, prompt_text="four")
    await sessions.prompts(["admin"]).RecordPrompt(request)
    assert await listed(sessions) == ["four", "three", "two", "one"]
    assert await listed(sessions, agent_id=agent.id.upper()) == ["one"]
    assert await listed(sessions, task_slug="fix-it") == ["two"]
    assert await listed(sessions, session_id="cli-1") == ["three"]
    assert await listed(sessions, author=ORCHESTRATOR) == ["four"]
    assert await listed(sessions, author=ENGINEER) == ["three", "two", "one"]
    assert await listed(sessions, since=middle) == ["four", "three"]
    assert await listed(sessions, until=middle) == ["two", "one"]


async def test_only_the_orchestrator_records_its_prompts(sessions: Sessions) -> None:
    with pytest.raises(PermissionDenied):
        await recorded(sessions, new_id(), author=ORCHESTRATOR)
    request = EnsureOrchestratorRequest(scopes=["agents:admin"])
    boss = (await sessions.orchestration(["admin"]).EnsureOrchestrator(request)).orchestrator
    with pytest.raises(PermissionDenied) as refused:
        await recorded(sessions, new_id(), author=ORCHESTRATOR)
    assert refused.value.reason == "SCOPE_MISSING"
    assert await sessions.count(tables.prompts) == 0
    assert (await recorded(sessions, boss.id, author=ORCHESTRATOR)).recorded_by == boss.id


async def test_an_archived_agent_keeps_its_prompts_and_gets_no_more(sessions: Sessions) -> None:
    agent = await sessions.agent()
    await recorded(sessions, agent_id=agent.id)
    await sessions.caller(["admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=agent.id))
    with pytest.raises(FailedPrecondition) as refused:
        await recorded(sessions, agent_id=agent.id)
    assert refused.value.reason == "AGENT_ARCHIVED"
    with pytest.raises(NotFound):
        await recorded(sessions, agent_id=new_id())
    assert await listed(sessions, agent_id=agent.id) == ["do it"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"agent_id": "7"}, "agent_id"),
        ({"task_slug": "s" * 101}, "task_slug"),
        ({"author": 0}, "author"),
        ({"author": 9}, "author"),
        ({"prompt_text": ""}, "prompt_text"),
        ({"prompt_text": "p" * 65_537}, "prompt_text"),
        ({"prompt_text": "a\x00"}, "prompt_text"),
        ({"summary": "s" * 2001}, "summary"),
        ({"session_id": "s" * 201}, "session_id"),
        ({"request_id": "k" * 256}, "request_id"),
    ],
)
async def test_one_outside_the_contract_is_refused(sessions: Sessions, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await recorded(sessions, **fields)
    assert [violation.field for violation in refused.value.violations] == [field]
    assert await sessions.count(tables.prompts) == 0


async def test_one_is_recorded_once_and_audited_without_its_text(sessions: Sessions) -> None:
    person = new_id()
    first = await recorded(sessions, person, prompt_text="a secret plan", task_slug="plan", request_id="key")
    assert await recorded(sessions, person, prompt_text="a secret plan", task_slug="plan", request_id="key") == first
    assert await sessions.count(tables.prompts) == 1
    [audited] = await sessions.audited()
    assert (audited["action"], audited["resource"], audited["actor"]) == ("prompt.record", f"prompt/{first.id}", person)
    assert audited["after"]["task_slug"] == "plan"
    assert "secret" not in str(audited)
