"""Steps that cannot fit the tools they name are refused when their task is created, changed or looked at."""

from typing import Any

import pytest
from baton.tasks.v1.task_pb2 import SCHEDULE_KIND_MANUAL
from baton.tasks.v1.task_service_pb2 import PreviewTaskRequest, UpdateTaskRequest
from baton.tasks.v1.tool_service_pb2 import UpdateToolServerRequest

from services.chassis.errors import InvalidArgument
from services.chassis.structs import to_struct
from tests.integration.tasks.running import Tasks, one_engine
from tests.integration.tasks.tool_servers import STDIO, offer, register

NOW = {
    "type": "object",
    "properties": {"timezone": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer"}}},
    "required": ["timezone"],
    "additionalProperties": False,
}
FIELD = "payload.pipeline[0].with"


def step(**with_: Any) -> dict[str, Any]:
    return {"pipeline": [{"uses": "time.now", "with": with_}], "params": {"zone": "UTC"}}


async def faults(tasks: Tasks, payload: dict[str, Any]) -> dict[str, str]:
    """What creating a task finds wrong; empty when it was created."""
    try:
        await tasks.create(payload=payload)
    except InvalidArgument as refused:
        return {violation.field: violation.description for violation in refused.violations}
    return {}


async def test_an_input_that_cannot_fit_is_refused_wherever_a_task_is_written(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    await offer(tasks, "time", now=NOW)
    wrong = step(timezone=5, zone="UTC", days=[1, "two"])
    found = {
        f"{FIELD}.timezone": "5 is not of type 'string'",
        f"{FIELD}.zone": "is not known to time.now; known are days, timezone",
        f"{FIELD}.days[1]": "'two' is not of type 'integer'",
    }
    assert await faults(tasks, wrong) == found
    preview = await tasks.tasks.PreviewTask(
        PreviewTaskRequest(title="a task", schedule_kind=SCHEDULE_KIND_MANUAL, payload=to_struct(wrong))
    )
    assert {error.field: error.description for error in preview.errors} == found
    task = await tasks.create(payload=step(timezone="UTC"))
    with pytest.raises(InvalidArgument) as refused:
        await tasks.tasks.UpdateTask(UpdateTaskRequest(task_id=task.id, payload=to_struct(wrong)))
    assert {violation.field for violation in refused.value.violations} == set(found)


@pytest.mark.parametrize(
    ("payload", "faulty"),
    [
        (step(timezone="UTC"), []),
        (step(timezone="${params.zone}"), []),
        (step(timezone="${params.zone}", days="${params.zone}"), []),
        (step(days=[]), [f"{FIELD}.timezone"]),
        ({"pipeline": [{"uses": "time.now"}]}, [f"{FIELD}.timezone"]),
        (step(timezone="${params.zone}", zone="${params.zone}"), [f"{FIELD}.zone"]),
        # Each fault of a step is told, its template's too.
        (step(timezone="${params.zone", days=1), [f"{FIELD}.timezone", f"{FIELD}.days"]),
        ({"pipeline": [{"uses": "time.now", "with": []}]}, [FIELD]),
        ({"pipeline": [{"uses": "time.then", "with": {"x": 1}}]}, ["payload.pipeline[0].uses"]),
        ({"pipeline": [{"uses": "echo.test", "with": {"x": 1}}]}, []),
    ],
)
@one_engine
async def test_only_what_is_certainly_wrong_is_refused(
    tasks: Tasks, payload: dict[str, Any], faulty: list[str]
) -> None:
    await register(tasks, **STDIO)
    await offer(tasks, "time", now=NOW)
    assert list(await faults(tasks, payload)) == faulty


@one_engine
async def test_where_the_tool_is_not_known_nothing_is_refused(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    assert await faults(tasks, step(nothing=1)) == {}
    await offer(tasks, "time", now={"type": "nonsense"})
    assert await faults(tasks, step(nothing=1)) == {}


@one_engine
async def test_no_schema_keeps_the_service_busy(tasks: Tasks) -> None:
    parts = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)}
    await register(tasks, **STDIO)
    await offer(tasks, "time", now={"$ref": "#/$defs/a0", "$defs": parts})
    many = {"pipeline": [{"uses": "time.now", "with": {"n": n}} for n in range(1000)]}
    assert await faults(tasks, many) == {}


async def test_the_tools_of_a_disabled_server_are_refused_until_it_is_enabled(tasks: Tasks) -> None:
    await register(tasks, **STDIO, enabled=False)
    refusal = {
        "payload.pipeline[0].uses": ("tool server 'time' is disabled: an operator enables it at PUT /tool-servers/time")
    }
    assert await faults(tasks, step()) == refusal
    await offer(tasks, "time", now=NOW)
    assert await faults(tasks, step(timezone="UTC")) == refusal
    await tasks.admin_tools.UpdateToolServer(UpdateToolServerRequest(name="time", enabled=True))
    assert await faults(tasks, step(timezone="UTC")) == {}
