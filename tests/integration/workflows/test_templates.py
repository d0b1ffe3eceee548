"""Reading templates."""

import asyncio
from dataclasses import replace

import pytest
from baton.workflows.v1.template_pb2 import (
    TRANSITION_KIND_ERROR,
    TRANSITION_KIND_FORWARD,
    TRANSITION_KIND_RECOVER,
    TRANSITION_KIND_RETRY,
    Template,
)
from baton.workflows.v1.template_service_pb2 import GetTemplateRequest
from baton.workflows.v1.template_service_pb2_grpc import TemplateServiceStub
from sqlalchemy import func, select

from services.chassis.errors import InvalidArgument, NotFound, PermissionDenied, ServiceError, Unauthenticated
from services.workflows.operations import template as operations
from services.workflows.store import tables
from tests.integration.workflows.running import Workflows
from tests.support.grpc import channel_of


async def read(workflows: Workflows, name: str, version: int | None = None, scopes: str = "workflows:read") -> Template:
    token = workflows.signer.token(scopes.split())
    async with channel_of(workflows.address, token) as channel:
        request = GetTemplateRequest(name=name, version=version)
        return (await TemplateServiceStub(channel).GetTemplate(request)).template


async def refusal(workflows: Workflows, name: str, version: int | None = None, scopes: str = "admin") -> ServiceError:
    with pytest.raises(ServiceError) as refused:
        await read(workflows, name, version, scopes)
    return refused.value


async def test_the_build_template_is_there_once_the_service_is_ready(workflows: Workflows) -> None:
    await workflows.service.ready()
    build = await read(workflows, "build")
    assert (build.name, build.version, build.initial_state) == ("build", 2, "discovery")
    assert build.created_at.seconds > 0
    states = {state.name: state for state in build.states}
    assert len(states) == 12
    assert (states["testing"].owner_role, states["testing"].phase) == ("test_auditor", "testing")
    assert states["complete"].terminal
    assert not states["deployment"].terminal
    assert (states["error"].owner_role, states["error"].phase) == ("", "")
    kinds = {(edge.from_state, edge.to_state): edge.kind for edge in build.transitions}
    assert len(kinds) == 23
    assert kinds["planning", "handoff_to_coder"] == TRANSITION_KIND_FORWARD
    assert kinds["testing", "implementation"] == TRANSITION_KIND_RETRY
    assert kinds["deployment", "error"] == TRANSITION_KIND_ERROR
    assert kinds["error", "verification"] == TRANSITION_KIND_RECOVER


async def test_the_newest_version_is_read_unless_one_is_named(workflows: Workflows) -> None:
    await workflows.service.ready()
    first = next(one for one in workflows.service.shipped if one.name == "build")
    newer = [replace(first, version=version, description=f"version {version}") for version in (9, 10)]
    await workflows.service.database.transact(
        lambda connection, clock: operations.store_templates(connection, newer, clock=clock)
    )
    assert (await read(workflows, "build")).version == 10
    assert (await read(workflows, "build", 2)).description == first.description
    assert (await read(workflows, "build", 9)).description == "version 9"


async def test_a_template_that_is_stored_never_changes(workflows: Workflows) -> None:
    await workflows.service.ready()
    before = await read(workflows, "build")
    first = next(one for one in workflows.service.shipped if one.name == "build")
    await workflows.service.database.transact(
        lambda connection, clock: operations.store_templates(
            connection, [replace(first, description="other")], clock=clock
        )
    )
    assert await read(workflows, "build") == before


async def test_several_starters_store_a_template_once(workflows: Workflows) -> None:
    await asyncio.gather(*(workflows.service.ready() for _ in range(10)))
    count = select(func.count()).select_from(tables.templates)
    stored = await workflows.service.database.read(lambda connection, clock: connection.execute(count).scalar_one())
    assert stored == len(workflows.service.shipped)


async def test_a_template_that_is_not_there_is_not_found(workflows: Workflows) -> None:
    await workflows.service.ready()
    unknown = await refusal(workflows, "paint")
    assert isinstance(unknown, NotFound)
    assert (unknown.reason, unknown.message) == ("TEMPLATE_NOT_FOUND", "template 'paint' not found")
    assert (await refusal(workflows, "build", 7)).message == "version 7 of template 'build' not found"


@pytest.mark.parametrize(
    ("name", "version", "field"), [("Build it!", None, "name"), ("", None, "name"), ("build", 0, "version")]
)
async def test_a_request_outside_the_contract_is_refused(
    workflows: Workflows, name: str, version: int | None, field: str
) -> None:
    refused = await refusal(workflows, name, version)
    assert isinstance(refused, InvalidArgument)
    assert [violation.field for violation in refused.violations] == [field]


async def test_reading_needs_the_scope(workflows: Workflows) -> None:
    refused = await refusal(workflows, "build", scopes="workflows:write tasks:read agents:admin")
    assert isinstance(refused, PermissionDenied)
    assert (refused.reason, refused.metadata) == ("SCOPE_MISSING", {"scope": "workflows:read"})


async def test_reading_needs_a_token(workflows: Workflows) -> None:
    async with channel_of(workflows.address) as channel:
        with pytest.raises(Unauthenticated):
            await TemplateServiceStub(channel).GetTemplate(GetTemplateRequest(name="build"))
