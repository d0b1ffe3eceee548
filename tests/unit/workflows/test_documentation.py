"""The template that the documentation shows is one."""

import re

import yaml

from services.workflows.definition import parse
from services.workflows.source import read_source
from tests.support.baton import ROOT

DOCUMENT = (ROOT / "docs" / "workflows.md").read_text()


def test_the_template_of_the_document_is_taken() -> None:
    (source,) = re.findall(r"^```yaml\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    document = read_source(source)
    definition = parse({"version": 1, **document})
    assert (definition.name, definition.states[0].deadline_seconds) == ("article", 86_400)
    assert document == yaml.safe_load(source)


def test_every_field_of_a_state_is_explained() -> None:
    table = DOCUMENT.partition("| Field of a state |")[2].partition("\n\n")[0]
    told = set(re.findall(r"`([a-z_]+)`", "\n".join(re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE))))
    assert told == {
        "name", "description", "owner_role", "phase", "handoff", "result_schema", "deadline_seconds", "terminal",
        "ack_required", "ack_seconds", "run_for_role",
    }  # fmt: skip
