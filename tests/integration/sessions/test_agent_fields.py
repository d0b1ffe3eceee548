"""What is kept of an agent, and how it is changed."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from baton.sessions.v1.agent_pb2 import Agent, AgentStatus
from baton.sessions.v1.agent_service_pb2 import (
    ArchiveAgentRequest,
    CreateAgentRequest,
    GetAgentRequest,
    UpdateAgentRequest,
)
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from services.chassis import outbox
from services.chassis.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServiceError,
)
from services.chassis.ids import new_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import from_timestamp
from services.sessions.models.agent import SYSTEM_ID
from services.sessions.operations.agent import ensure_agent
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions

FULL = {
    "role": "planner",
    "model": "a large one",
    "system_prompt": "You plan.\n" * 1000,
    "webhook_url": "https://example.com/hook",
    "working_dir": "/srv/work",
    "git_worktree": "/srv/work/tree",
    "session_id": "cli-1",
}
OTHER = {
    "name": "writer",
    "role": "writer",
    "model": "a small one",
    "system_prompt": "You write.",
    "webhook_url": "https://example.org/other",
    "working_dir": "/srv/other",
    "git_worktree": "/srv/other/tree",
    "session_id": "cli-2",
}


async def update(sessions: Sessions, agent_id: str, **fields: Any) -> Agent:
    return (await sessions.caller(["admin"]).UpdateAgent(UpdateAgentRequest(agent_id=agent_id, **fields))).agent


async def read(sessions: Sessions, agent_id: str) -> Agent:
    return (await sessions.caller(["agents:read"]).GetAgent(GetAgentRequest(agent_id=agent_id))).agent


async def test_a_new_agent_is_idle_has_used_nothing_and_has_what_it_was_given(sessions: Sessions) -> None:
    agent = await sessions.agent(**FULL, metadata=to_struct({"a": 1, "b": None, "c": {"d": [True, None]}}))
    assert {name: getattr(agent, name) for name in FULL} == FULL
    assert from_struct(agent.metadata) == {"a": 1, "c": {"d": [True, None]}}
    assert (agent.status, agent.archived, agent.version) == (AgentStatus.AGENT_STATUS_IDLE, False, 1)
    assert (agent.input_tokens, agent.output_tokens, agent.cost_microusd) == (0, 0, 0)
    assert not agent.HasField("archived_at")
    assert await read(sessions, agent.id) == agent


async def test_what_an_agent_was_not_given_it_lacks(sessions: Sessions) -> None:
    agent = await sessions.agent()
    assert not any(agent.HasField(name) for name in ("webhook_url", "session_id", "orchestrator_agent_id"))
    assert (agent.model, agent.system_prompt, agent.working_dir, agent.git_worktree) == ("", "", "", "")
    assert from_struct(agent.metadata) == {}


@pytest.mark.parametrize("field", OTHER)
async def test_one_field_is_changed_and_all_others_stay(sessions: Sessions, field: str) -> None:
    before = await sessions.agent(**FULL)
    sessions.clock.advance(minutes=1)
    after = await update(sessions, before.id, **{field: OTHER[field]})
    assert getattr(after, field) == OTHER[field]
    assert after.version == 2
    assert from_timestamp(after.updated_at) == from_timestamp(before.updated_at) + timedelta(minutes=1)
    expected = Agent()
    expected.CopyFrom(before)
    for name in (field, "version", "updated_at"):
        expected.ClearField(name)
    assert await read(sessions, before.id) == after
    for name in (field, "version", "updated_at"):
        after.ClearField(name)
    assert after == expected


async def test_what_the_mask_names_without_a_value_is_cleared(sessions: Sessions) -> None:
    agent = await sessions.agent(**FULL, metadata=to_struct({"a": 1}))
    names = ["role", "model", "system_prompt", "webhook_url", "working_dir", "git_worktree", "session_id", "metadata"]
    after = await update(sessions, agent.id, update_mask=FieldMask(paths=names), version=1)
    assert (after.role, after.model, after.system_prompt, after.working_dir, after.git_worktree) == ("",) * 5
    assert not after.HasField("webhook_url")
    assert not after.HasField("session_id")
    assert from_struct(after.metadata) == {}


@pytest.mark.parametrize("name", ["name", "scopes", "status"])
async def test_what_every_agent_has_cannot_be_cleared(sessions: Sessions, name: str) -> None:
    agent = await sessions.agent()
    with pytest.raises(InvalidArgument) as refused:
        await update(sessions, agent.id, update_mask=FieldMask(paths=[name]))
    assert [violation.field for violation in refused.value.violations] == [name]


async def test_a_mask_that_names_something_else_is_refused(sessions: Sessions) -> None:
    agent = await sessions.agent()
    with pytest.raises(
        InvalidArgument, match="'archived', which cannot be changed: use some of name, scopes"
    ) as refused:
        await update(sessions, agent.id, update_mask=FieldMask(paths=["archived", "role"]), role="writer")
    assert [violation.field for violation in refused.value.violations] == ["update_mask"]
    assert await read(sessions, agent.id) == agent


async def test_a_change_that_changes_nothing_is_none(sessions: Sessions) -> None:
    agent = await sessions.agent(**FULL)
    sessions.clock.advance(minutes=1)
    assert await update(sessions, agent.id, **FULL, scopes=["tasks:read"]) == agent
    # The audit hears of every call, and of this one that it changed nothing.
    entry = (await sessions.audited())[-1]
    assert (entry["action"], entry["resource"]) == ("agent.update", f"agent/{agent.id}")
    assert not any(name.startswith(("before", "after")) and value for name, value in entry.items())


async def test_metadata_is_merged_and_null_removes(sessions: Sessions) -> None:
    agent = await sessions.agent(metadata=to_struct({"a": 1, "b": {"x": 1}, "c": 3}))
    after = await update(sessions, agent.id, metadata=to_struct({"a": None, "b": {"y": [1.5, "z"]}, "d": None}))
    assert from_struct(after.metadata) == {"b": {"y": [1.5, "z"]}, "c": 3}


async def test_true_is_not_the_metadata_that_1_is(sessions: Sessions) -> None:
    agent = await sessions.agent(metadata=to_struct({"a": 1}))
    after = await update(sessions, agent.id, metadata=to_struct({"a": True}))
    assert from_struct(after.metadata)["a"] is True
    assert after.version == agent.version + 1


async def test_metadata_that_many_change_at_once_keeps_what_each_has_given(sessions: Sessions) -> None:
    agent = await sessions.agent()
    given = {f"key-{number}": number for number in range(20)}
    await asyncio.gather(
        *(update(sessions, agent.id, metadata=to_struct({name: value})) for name, value in given.items())
    )
    after = await read(sessions, agent.id)
    assert from_struct(after.metadata) == given
    assert after.version == 21


async def test_metadata_has_a_limit_that_counts_what_would_be_kept(sessions: Sessions) -> None:
    half = to_struct({"a": "x" * 9000})
    with pytest.raises(InvalidArgument) as refused:
        await sessions.agent(metadata=to_struct({"a": "x" * 9000, "b": "x" * 9000}))
    assert [violation.field for violation in refused.value.violations] == ["metadata"]
    assert "16384" in refused.value.message
    agent = await sessions.agent(metadata=half)
    with pytest.raises(InvalidArgument) as refused:
        await update(sessions, agent.id, metadata=to_struct({"b": "x" * 9000}))
    assert [violation.field for violation in refused.value.violations] == ["metadata"]
    after = await update(sessions, agent.id, metadata=to_struct({"a": None, "b": "x" * 9000}))
    assert list(from_struct(after.metadata)) == ["b"]


async def test_metadata_is_nested_no_deeper_than_a_list_of_agents_can_be_read(sessions: Sessions) -> None:
    deepest = {"a": [[[[[[[[[[[[[[[[[[["end"]]]]]]]]]]]]]]]]]]]}
    agent = await sessions.agent(metadata=to_struct(deepest))
    assert from_struct((await read(sessions, agent.id)).metadata) == deepest
    for deeper in ({"a": deepest}, {"a": [deepest["a"]]}):
        with pytest.raises(InvalidArgument, match="deeper than 20 levels") as refused:
            await update(sessions, agent.id, metadata=to_struct(deeper))
        assert [violation.field for violation in refused.value.violations] == ["metadata"]


BAD_URLS = [
    "http://example.com/hook",
    "https://127.0.0.1/hook",
    "https://10.1.2.3/hook",
    "https://[::1]/hook",
    "https://user:word@example.com/",
    "ftp://example.com/",
    "not a url",
    "https://169.254.169.254/latest",
]


@pytest.mark.parametrize("url", BAD_URLS)
async def test_a_webhook_s_url_is_one_that_may_be_reached(sessions: Sessions, url: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await sessions.agent(name="scribe", webhook_url=url)
    assert [violation.field for violation in refused.value.violations] == ["webhook_url"]
    agent = await sessions.agent(name="scribe")
    with pytest.raises(InvalidArgument) as refused:
        await update(sessions, agent.id, webhook_url=url)
    assert [violation.field for violation in refused.value.violations] == ["webhook_url"]


TOO_LONG = {
    "name": 100,
    "role": 50,
    "model": 100,
    "system_prompt": 65_536,
    "working_dir": 1024,
    "git_worktree": 1024,
    "session_id": 200,
}


@pytest.mark.parametrize("field", TOO_LONG)
async def test_texts_have_limits(sessions: Sessions, field: str) -> None:
    longest = "x" * TOO_LONG[field]
    agent = await sessions.agent(**{field: longest})
    assert getattr(await update(sessions, agent.id, **{field: "y" * TOO_LONG[field]}), field).startswith("y")
    for request in (CreateAgentRequest(**{"name": "n", "scopes": ["tasks:read"]} | {field: longest + "x"}),):
        with pytest.raises(InvalidArgument) as refused:
            await sessions.caller(["admin"]).CreateAgent(request)
        assert [violation.field for violation in refused.value.violations] == [field]
    with pytest.raises(InvalidArgument) as refused:
        await update(sessions, agent.id, **{field: longest + "x"})
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_all_faults_are_named_at_once_and_nothing_is_stored(sessions: Sessions) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await sessions.agent(
            webhook_url="https://127.0.0.1/",
            metadata=to_struct({"a": "x" * 17_000}),
            orchestrator_agent_id=new_id(),
        )
    fields = [violation.field for violation in refused.value.violations]
    assert fields == ["webhook_url", "metadata", "orchestrator_agent_id"]
    assert await sessions.count(tables.agents) == 0
    assert await sessions.count(tables.outbox) == 0


async def test_a_nul_deep_in_the_metadata_is_refused(sessions: Sessions) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await sessions.agent(metadata=to_struct({"a": {"b": ["x\x00y"]}}))
    assert [violation.field for violation in refused.value.violations] == ["metadata.a.b[0]"]


async def test_a_version_that_is_no_longer_the_agent_s_is_refused(sessions: Sessions) -> None:
    agent = await sessions.agent()
    assert (await update(sessions, agent.id, model="one", version=1)).version == 2
    with pytest.raises(Aborted, match="has version 2, not 1") as refused:
        await update(sessions, agent.id, model="two", version=1)
    assert refused.value.reason == "AGENT_VERSION_MISMATCH"
    assert (await read(sessions, agent.id)).model == "one"


async def test_of_twenty_who_change_one_version_one_does(sessions: Sessions) -> None:
    agent = await sessions.agent()

    async def attempt(number: int) -> str:
        try:
            return (await update(sessions, agent.id, model=f"model {number}", version=1)).model
        except ServiceError as error:
            return error.reason

    answers = await asyncio.gather(*(attempt(number) for number in range(20)))
    assert answers.count("AGENT_VERSION_MISMATCH") == 19
    assert (await read(sessions, agent.id)).model in answers


async def test_a_name_that_another_agent_has_is_taken(sessions: Sessions) -> None:
    await sessions.agent(name="scribe")
    other = await sessions.agent(name="writer")
    with pytest.raises(AlreadyExists, match="'scribe'") as refused:
        await update(sessions, other.id, name="scribe", model="x")
    assert refused.value.reason == "AGENT_NAME_TAKEN"
    assert await read(sessions, other.id) == other


async def test_of_ten_who_take_one_name_one_gets_it(sessions: Sessions) -> None:
    agents = [await sessions.agent() for _ in range(10)]

    async def attempt(agent: Agent) -> str:
        try:
            return (await update(sessions, agent.id, name="scribe")).name
        except ServiceError as error:
            return error.reason

    answers = await asyncio.gather(*(attempt(agent) for agent in agents))
    assert sorted(answers) == ["AGENT_NAME_TAKEN"] * 9 + ["scribe"]


async def test_an_agent_gains_only_what_the_caller_holds(sessions: Sessions) -> None:
    agent = await sessions.agent("tasks:read", "audit:read")
    limited = sessions.caller(["agents:admin", "tasks:write"])
    with pytest.raises(PermissionDenied, match="the caller does not hold admin") as refused:
        await limited.UpdateAgent(UpdateAgentRequest(agent_id=agent.id, scopes=["admin"]))
    assert refused.value.reason == "SCOPES_NOT_HELD"
    # It may keep what it has, and lose it.
    changed = await limited.UpdateAgent(UpdateAgentRequest(agent_id=agent.id, scopes=["tasks:write", "audit:read"]))
    assert list(changed.agent.scopes) == ["audit:read", "tasks:write"]


@pytest.mark.parametrize("role", ["payer", ""])
async def test_whoever_changes_what_an_agent_works_as_could_do_that_work(sessions: Sessions, role: str) -> None:
    agent = await sessions.agent("runs:work", role="mailer")
    request = UpdateAgentRequest(agent_id=agent.id, role=role)
    with pytest.raises(PermissionDenied, match="the caller does not hold runs:work") as refused:
        await sessions.caller(["agents:admin"]).UpdateAgent(request)
    assert refused.value.reason == "SCOPES_NOT_HELD"
    holder = sessions.caller(["agents:admin", "runs:work"])
    assert (await holder.UpdateAgent(request)).agent.role == role
    # Without the scope a role is a word.
    other = await sessions.agent("runs:read", role="mailer")
    free = UpdateAgentRequest(agent_id=other.id, role=role)
    assert (await sessions.caller(["agents:admin"]).UpdateAgent(free)).agent.role == role


async def test_a_scope_that_does_not_exist_is_named_where_it_stands(sessions: Sessions) -> None:
    agent = await sessions.agent()
    with pytest.raises(InvalidArgument) as refused:
        await update(sessions, agent.id, scopes=["tasks:read", "tasks:fly", "audit:read"])
    assert [violation.field for violation in refused.value.violations] == ["scopes[1]"]


async def test_a_token_loses_at_once_what_its_agent_loses_and_gains_nothing(sessions: Sessions) -> None:
    agent = await sessions.agent("tasks:read", "tasks:write")
    token = (await sessions.minted(agent.id)).token
    await update(sessions, agent.id, scopes=["tasks:read", "runs:read"])
    assert (await sessions.exchanged(token)).scopes == {"tasks:read"}


async def test_the_agent_system_keeps_its_name_and_scopes(sessions: Sessions) -> None:
    await sessions.database.transact(
        lambda connection, clock: ensure_agent(
            connection, agent_id=SYSTEM_ID, name="system", scopes=["admin"], clock=clock
        )
    )
    with pytest.raises(InvalidArgument) as refused:
        await update(sessions, SYSTEM_ID, name="other", scopes=["tasks:read"])
    assert [violation.field for violation in refused.value.violations] == ["name", "scopes"]
    assert (await update(sessions, SYSTEM_ID, model="none")).model == "none"


async def test_an_agent_that_is_not_there_is_not_changed(sessions: Sessions) -> None:
    with pytest.raises(NotFound) as refused:
        await update(sessions, new_id(), model="x")
    assert refused.value.reason == "AGENT_NOT_FOUND"


async def test_a_status_that_cannot_follow_is_refused_in_a_change_too(sessions: Sessions) -> None:
    agent = await sessions.agent()
    with pytest.raises(FailedPrecondition) as refused:
        await update(sessions, agent.id, model="x", status=AgentStatus.AGENT_STATUS_BLOCKED)
    assert refused.value.reason == "AGENT_STATUS_ILLEGAL"
    assert await read(sessions, agent.id) == agent
    after = await update(sessions, agent.id, model="x", status=AgentStatus.AGENT_STATUS_EXECUTING)
    assert (after.model, after.status) == ("x", AgentStatus.AGENT_STATUS_EXECUTING)


async def test_the_audit_is_told_who_changed_what_and_no_secrets(sessions: Sessions) -> None:
    admin_id = new_id()
    admin = sessions.caller(["admin"], agent_id=admin_id)
    metadata = Struct()
    metadata.update({"hidden": "value"})
    created = CreateAgentRequest(
        name="scribe", scopes=["tasks:read"], webhook_url="https://example.com/hook?key=hidden", request_id="key-1"
    )
    agent = (await admin.CreateAgent(created)).agent
    await admin.UpdateAgent(
        UpdateAgentRequest(
            agent_id=agent.id, name="writer", metadata=metadata, system_prompt="hidden", request_id="key-2"
        )
    )
    first, second = await sessions.audited()
    assert (first["action"], first["actor"], first["resource"]) == ("agent.create", admin_id, f"agent/{agent.id}")
    assert (first["request_id"], first["before"]) == ("key-1", None)
    assert first["after"]["webhook_url"] == "https://example.com"
    assert second["action"] == "agent.update"
    assert second["request_id"] == "key-2"
    assert second["before"]["name"] == "scribe"
    assert set(second["after"]) == {"name", "metadata", "system_prompt"}
    assert "hidden" not in repr((first, second))


async def test_where_an_agent_is_told_of_its_runs_is_told_when_it_changes(sessions: Sessions) -> None:
    admin = sessions.caller(["admin"])
    made = (await admin.CreateAgent(CreateAgentRequest(name="ada", scopes=["tasks:read"]))).agent
    for changes in (
        {"webhook_url": "https://example.com/hook"},
        {"model": "m"},
        {"webhook_url": "https://example.com/hook"},
        {"webhook_url": "https://example.org/other"},
    ):
        await admin.UpdateAgent(UpdateAgentRequest(agent_id=made.id, **changes))
    await admin.ArchiveAgent(ArchiveAgentRequest(agent_id=made.id))
    told = sessions.database.run(
        lambda connection, clock: outbox.oldest(connection, tables.outbox, outbox.AGENT_WEBHOOK, 10)
    )
    assert [message.payload for message in told] == [
        {"agent_id": made.id, "url": url} for url in ("https://example.com/hook", "https://example.org/other", None)
    ]
