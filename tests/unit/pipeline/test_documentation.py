"""docs/pipelines.md says what is so."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from services.pipeline.builtin import BUILTIN_TOOLS
from services.pipeline.conditions import holds
from services.pipeline.definition import check, parse
from services.pipeline.errors import TemplateError
from services.pipeline.sketch import sketch
from services.pipeline.templates import render

TEXT = (Path(__file__).parents[3] / "docs" / "pipelines.md").read_text()


def blocks(language: str) -> list[Any]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [json.loads(block) for block in found]


def rows(heading: str) -> list[tuple[str, ...]]:
    """The cells of the table that begins with `heading`, without the backticks around code."""
    table = TEXT.partition(f"\n| {heading} |")[2].partition("\n\n")[0].strip().split("\n")[1:]
    return [tuple(_plain(cell) for cell in re.split(r"(?<!\\)\|", line.strip("| "))) for line in table]


def _plain(cell: str) -> str:
    text = cell.strip().replace("\\|", "|")
    code = re.fullmatch(r"(`+)(.*?)\1", text)
    return code[2].strip() if code else text


(CONTEXT,) = blocks("json context")
HTTP_REQUEST = BUILTIN_TOOLS["http.request"]


def test_the_example_is_a_pipeline() -> None:
    (example,) = blocks("json")
    assert len(parse(example).steps) == 3


def test_the_example_of_a_request_is_a_pipeline_and_fits_the_tool() -> None:
    (example,) = blocks("json http")
    assert check(example) == []
    request = render(example["pipeline"][0]["with"], {"params": example["params"]})
    Draft202012Validator(dict(HTTP_REQUEST.input_schema)).validate(request)


def test_the_example_of_acting_is_a_pipeline_and_fits_the_tools() -> None:
    (example,) = blocks("json acting")
    assert check(example) == []
    some_id = "0192f0c1-2c4f-7a44-9f3a-1b2c3d4e5f60"
    saved = {"event": {"event_id": some_id}, "receipt": {"run_id": some_id}}
    context = {"params": example["params"], "steps": saved}
    for step in example["pipeline"]:
        schema = dict(BUILTIN_TOOLS[step["uses"]].input_schema)
        Draft202012Validator(schema).validate(render(step["with"], context))


def test_every_input_and_output_of_a_request_is_explained() -> None:
    assert {name for name, _ in rows("Input | Meaning")} == set(HTTP_REQUEST.input_schema["properties"])
    assert {name for name, _ in rows("Output | Meaning")} == set(HTTP_REQUEST.output_schema["properties"])


@pytest.mark.parametrize(("text", "becomes", "why"), rows("String | Becomes | Why"))
def test_what_templates_become(text: str, becomes: str, why: str) -> None:
    assert render({"value": text}, CONTEXT)["value"] == json.loads(becomes), why


@pytest.mark.parametrize(("text", "message"), rows("String | Error"))
def test_what_templates_refuse(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render({"value": text}, CONTEXT)
    assert str(caught.value) == f"with.value: {message}"


@pytest.mark.parametrize(("text", "fault"), rows("Not a reference | Fault"))
def test_what_secrets_are_not_for(text: str, fault: str) -> None:
    (problem,) = check({"pipeline": [{"uses": "a.b", "with": {"value": text}}]})
    assert problem.description == fault


@pytest.mark.parametrize(("text", "truth"), rows("Condition | True"))
def test_what_conditions_hold(text: str, truth: str) -> None:
    assert holds(text, CONTEXT) is (truth == "yes")


def test_the_faults_of_a_faulty_payload() -> None:
    (faulty,) = blocks("json faulty")
    assert [(problem.field, problem.description) for problem in check(faulty)] == rows("Field | Fault")


@pytest.mark.parametrize(("step_id", "condition", "becomes"), rows("Step | `if` | Becomes"))
def test_what_a_preview_shows(step_id: str, condition: str, becomes: str) -> None:
    (example,), (sample,) = blocks("json"), blocks("json sample")
    context = {"now": "", "params": example["params"], "run": {}, "task": {}, **sample}
    (step,) = [step for step in sketch(example, context) if step.id == step_id]
    assert step.condition is {"": None, "yes": True, "no": False}[condition]
    assert step.with_ == json.loads(becomes)
    assert [problem.field for problem in step.unresolved] == (
        ["payload.pipeline[2].with.text"] if step_id == "announce" else []
    )


@pytest.mark.parametrize("name", ["foreach", "retry"])
def test_the_other_examples_are_pipelines(name: str) -> None:
    (example,) = blocks(f"json {name}")
    assert check(example) == []
