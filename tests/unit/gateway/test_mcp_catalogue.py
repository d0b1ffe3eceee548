"""Which tools a contract makes, and what clients are told of them."""

from collections.abc import Callable
from typing import Any

import grpc
import jsonschema
import pytest
from baton.api.v1 import annotations_pb2
from google.api import annotations_pb2 as http_annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from mcp_types import Tool

from services.chassis.config import ConfigurationError
from services.gateway.backends import UnaryCall
from services.gateway.descriptors import Binding, Method
from services.gateway.mcp.catalogue import catalogue_of
from services.gateway.transcode.parser import Parsers
from services.gateway.transcode.printer import Printers
from tests.unit.gateway.garden import Garden
from tests.unit.gateway.mcp_client import MODES, open_client


async def listed(garden: Garden, mode: str = "auto") -> dict[str, Tool]:
    async with open_client(garden, mode) as client:
        return {tool.name: tool for tool in (await client.list_tools()).tools}


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_contract_marks_is_a_tool(garden: Garden, mode: str) -> None:
    tools = await listed(garden, mode)
    assert list(tools) == [
        "look_at_plant", "list_plants", "plant", "change_plant", "water_plant", "change_bed", "harvest_plant",
        "order_seeds", "sweep", "look_at_frog", "adopt_frog",
    ]  # fmt: skip
    assert tools["plant"].description == "Plants a plant.\n\nScope: `plants:write`."
    reads = {name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint}
    assert reads == {"look_at_plant", "list_plants", "look_at_frog"}


@pytest.mark.parametrize("mode", MODES)
async def test_schemas_are_whole(garden: Garden, mode: str) -> None:
    for tool in (await listed(garden, mode)).values():
        for schema in (tool.input_schema, tool.output_schema):
            assert schema is not None
            assert schema["type"] == "object"
            jsonschema.Draft202012Validator.check_schema(schema)
            wanted = {ref.removeprefix("#/$defs/") for ref in references(schema)}
            assert wanted <= schema.get("$defs", {}).keys()


def references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [one for item in schema for one in references(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
    return own + [one for item in schema.values() for one in references(item)]


async def test_arguments_are_the_fields_of_the_request(garden: Garden) -> None:
    tools = await listed(garden)
    plant = tools["plant"].input_schema
    assert plant["properties"].keys() == {"name", "state", "like", "notes", "tags", "idempotency_key"}
    assert plant["required"] == ["name", "state", "notes"]
    assert plant["additionalProperties"] is False
    assert plant["properties"]["name"] == {
        "type": "string", "minLength": 1, "maxLength": 20, "description": "1..20 characters.",
    }  # fmt: skip
    assert plant["properties"]["state"]["enum"] == ["growing", "thirsty"]
    # What REST has in its path, and a key that the contract insists on.
    assert tools["water_plant"].input_schema["required"] == ["amount", "plant_id"]
    assert "idempotency_key" not in tools["water_plant"].input_schema["properties"]
    seeds = tools["order_seeds"].input_schema
    assert (seeds["required"], seeds["properties"]["idempotency_key"]["format"]) == (["idempotency_key"], "uuid")
    # Null clears a field, and names none.
    bed = tools["change_bed"].input_schema["properties"]
    assert (bed["label"]["type"], bed["id"]["type"]) == (["string", "null"], "string")
    assert "update_mask" not in bed
    plant = tools["change_plant"].input_schema["properties"]
    assert (plant["plant"]["properties"]["nickname"]["type"], plant["dry_run"]["type"]) == (
        ["string", "null"],
        ["boolean", "null"],
    )
    assert "update_mask" not in plant


def method(name: str = "sow", beside: str = "", streams: bool = False, answers: str = "", **output: Any) -> Method:
    """A method that is the tool `name`, made up at run time; `output` describes the one field of its answer.

    Its answer is of a type of its own, or of `answers`. In its service there is another method, without a route,
    which is the tool `beside`.
    """
    number = method.made = getattr(method, "made", 0) + 1  # type: ignore[attr-defined]
    file = descriptor_pb2.FileDescriptorProto(name=f"field{number}.proto", package=f"field{number}", syntax="proto3")
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    asked = file.message_type.add(name="Asked")
    asked.field.add(name=output.pop("asks", "bed"), number=1, type=9, label=1)
    file.message_type.add(name="Answered").field.add(name="plant", number=1, **({"type": 9, "label": 1} | output))
    sow = file.service.add(name="FieldService").method.add(
        name="Sow", input_type=f".field{number}.Asked", output_type=f".{answers or f'field{number}.Answered'}"
    )
    sow.server_streaming = streams
    sow.options.Extensions[annotations_pb2.mcp_tool].name = name
    sow.options.Extensions[http_annotations_pb2.http].post = "/fields"
    if beside:
        plough = file.service[0].method.add(name="Plough", input_type=sow.input_type, output_type=sow.output_type)
        plough.options.Extensions[annotations_pb2.mcp_tool].name = beside
    pool = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindServiceByName(f"field{number}.FieldService").methods_by_name["Sow"]
    return Method(f"field{number}", descriptor, (Binding("POST", "/fields", "*", "plant" if output else ""),),
                  annotations_pb2.MethodPolicy(scope="fields:write"))  # fmt: skip


@pytest.mark.parametrize(
    ("methods", "why"),
    [
        (lambda: [method("sow"), method("sow")], "so is another method"),
        (lambda: [method("Sow!")], "use 1 to 64 of a to z"),
        (lambda: [method("s" * 65)], "use 1 to 64 of a to z"),
        (lambda: [method(streams=True)], "a tool has one answer"),
        (lambda: [method(label=3)], "its answer must be an object"),
        (lambda: [method(type=5)], "its answer must be an object"),
        (lambda: [method(answers="google.protobuf.Int64Value")], "its answer must be an object"),
        (lambda: [method(type=11, type_name=".google.protobuf.Timestamp")], "its answer must be an object"),
        (lambda: [method(asks="idempotency_key")], "which tools have for its key"),
        (lambda: [method(beside="plough")], "has no route"),
    ],
)
async def test_what_cannot_be_a_tool_is_refused_at_the_start(methods: Callable[[], list[Method]], why: str) -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(ConfigurationError, match=why):
            catalogue_of(methods(), {}, lambda one, key: UnaryCall(one, channel, 1, key), Parsers(), Printers())
