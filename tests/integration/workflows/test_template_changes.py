"""Templates of one's own."""

from typing import Any

import orjson
import pytest
import yaml
from baton.workflows.v1.template_pb2 import Template
from baton.workflows.v1.template_service_pb2 import (
    CreateTemplateRequest,
    DeleteTemplateRequest,
    GetTemplateRequest,
    ListTemplatesRequest,
)
from baton.workflows.v1.template_service_pb2_grpc import TemplateServiceStub

from services.chassis.errors import AlreadyExists, InvalidArgument, NotFound
from services.chassis.ids import new_id
from services.workflows.store import tables
from tests.integration.workflows.running import Workflows
from tests.support.grpc import channel_of
from tests.unit.workflows.test_template_definition import SMALL

ADMINISTRATOR = new_id()
UNNUMBERED = {name: value for name, value in SMALL.items() if name != "version"}


def templates(workflows: Workflows) -> TemplateServiceStub:
    channel = channel_of(workflows.address, workflows.signer.token(["admin"], agent_id=ADMINISTRATOR))
    workflows.channels.append(channel)
    return TemplateServiceStub(channel)


async def create(workflows: Workflows, document: Any, **fields: Any) -> Template:
    source = document if isinstance(document, str) else yaml.safe_dump(document)
    request = CreateTemplateRequest(source=source, **fields)
    return (await templates(workflows).CreateTemplate(request)).template


async def faults(workflows: Workflows, document: Any) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as refused:
        await create(workflows, document)
    assert await workflows.count(tables.templates) == 0
    return {fault.field: fault.description for fault in refused.value.violations}


async def test_a_template_is_read_from_yaml_and_json(workflows: Workflows) -> None:
    first = await create(workflows, UNNUMBERED)
    assert (first.name, first.version, [state.name for state in first.states]) == (
        "small", 1, ["draft", "review", "done"],
    )  # fmt: skip
    second = await create(workflows, orjson.dumps(SMALL | {"version": 2}).decode(), request_id="once")
    assert second.version == 2
    assert await create(workflows, orjson.dumps(SMALL | {"version": 2}).decode(), request_id="once") == second
    assert (await templates(workflows).GetTemplate(GetTemplateRequest(name="small"))).template == second
    entries = [one for one in await workflows.told("audit") if one["action"] == "template.create"]
    assert [(one["resource"], one["after"]["version"]) for one in entries] == [
        ("template/small", 1), ("template/small", 2),
    ]  # fmt: skip


async def test_what_is_under_way_stays_on_its_version(workflows: Workflows) -> None:
    await create(workflows, UNNUMBERED)
    workflow_id = await workflows.start(template="small")
    shorter = {
        "states": [SMALL["states"][0], SMALL["states"][2]],
        "transitions": [{"from_state": "draft", "to_state": "done", "kind": "forward"}],
    }
    await create(workflows, UNNUMBERED | shorter)
    assert (await workflows.advance(workflow_id, "draft", "writer")).new_state == "review"
    other = await workflows.start(template="small")
    assert (await workflows.advance(other, "draft", "writer")).is_complete


async def test_a_number_that_is_not_the_next_one_is_refused(workflows: Workflows) -> None:
    await create(workflows, SMALL)
    for version in (1, 3):
        with pytest.raises(AlreadyExists) as refused:
            await create(workflows, SMALL | {"version": version})
        assert (refused.value.reason, refused.value.metadata["next_version"]) == ("TEMPLATE_VERSION_TAKEN", "2")


async def test_a_deleted_template_starts_nothing_and_what_it_began_goes_on(workflows: Workflows) -> None:
    await create(workflows, SMALL)
    workflow_id = await workflows.start(template="small")
    await templates(workflows).DeleteTemplate(DeleteTemplateRequest(name="small"))
    for call in (
        templates(workflows).GetTemplate(GetTemplateRequest(name="small")),
        templates(workflows).DeleteTemplate(DeleteTemplateRequest(name="small")),
        workflows.start(template="small"),
    ):
        with pytest.raises(NotFound):
            await call
    assert (await workflows.advance(workflow_id, "draft", "writer")).new_state == "review"
    assert (await templates(workflows).GetTemplate(GetTemplateRequest(name="small", version=1))).template.version == 1
    assert (await create(workflows, UNNUMBERED)).version == 2
    await workflows.start(template="small")


async def test_templates_are_listed_by_name_in_their_newest_version(workflows: Workflows) -> None:
    await workflows.service.ready()
    for name in ("zebra", "ant", "ant"):
        await create(workflows, UNNUMBERED | {"name": name})
    first = await templates(workflows).ListTemplates(ListTemplatesRequest(limit=2))
    rest = await templates(workflows).ListTemplates(ListTemplatesRequest(limit=2, cursor=first.next_cursor))
    assert [(one.name, one.version) for one in [*first.items, *rest.items]] == [
        ("ant", 2), ("build", 2), ("incident_response", 1), ("zebra", 1),
    ]  # fmt: skip
    assert not rest.has_more


async def test_what_ships_with_baton_is_left_alone(workflows: Workflows) -> None:
    assert "source.name" in await faults(workflows, UNNUMBERED | {"name": "build"})
    with pytest.raises(InvalidArgument) as refused:
        await templates(workflows).DeleteTemplate(DeleteTemplateRequest(name="build"))
    assert [fault.field for fault in refused.value.violations] == ["name"]


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("source", "field", "words"),
    [
        ("name: [", "source", "line"),
        (BOMB, "source", "line 2: aliases are not taken"),
        ("!!python/object/apply:os.system [id]", "source", "line 1"),
        ("[" * 5000, "source", "cannot be read"),
        ("42", "source.template", "not of type 'object'"),
        ("name: small", "source.template", "is a required property"),
        (yaml.safe_dump(UNNUMBERED | {"initial_state": "start"}), "source.initial_state", "is not the name of a state"),
        (yaml.safe_dump(UNNUMBERED | {"name": 7}), "source.name", "is not of type 'string'"),
        (yaml.safe_dump(UNNUMBERED | {"when": 2026}), "source.template", "'when' was unexpected"),
    ],
)
async def test_what_is_no_template_is_told_and_not_stored(
    workflows: Workflows, source: str, field: str, words: str
) -> None:
    found = await faults(workflows, source)
    assert words in found[field]
