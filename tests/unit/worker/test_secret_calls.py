"""Steps and tool servers with secrets: who needs a value gets it, and nobody is told it."""

import logging
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from baton.tasks.v1 import tool_pb2

from services.pipeline import canonical
from services.worker.failures import MAX_MESSAGE, ToolFailed
from services.worker.secrets.folder import Secrets
from services.worker.tools.builtin import BuiltinTools
from services.worker.tools.mcp_pool import McpPool
from services.worker.tools.toolbox import Toolbox
from services.worker.tools.use import User
from tests.support.fake_tasks import FakeRun, FakeTasks
from tests.support.plain_mcp_server import TOOLS
from tests.support.waiting import await_until
from tests.unit.worker.conftest import Working

TOKEN = "ghp_4fT9vXw2LmQ8"
OTHER = "another/secret+of='quotes'"
PLAIN_SERVER = (sys.executable, "-m", "tests.support.plain_mcp_server")


@pytest.fixture
def folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Path:
    caplog.set_level(logging.DEBUG, "services.worker")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "token.tools").write_text("mis.*\nweb.add\necho.*\n")
    (tmp_path / "other").write_text(OTHER)
    return tmp_path


@pytest.fixture
async def worker(working: Working, folder: Path) -> AsyncIterator[None]:
    """A worker that has the folder's secrets."""
    async with working(secrets=Secrets(folder)):
        yield


def add_server(tasks: FakeTasks, **env: str) -> None:
    tasks.add_stdio_server("mis", *PLAIN_SERVER, PYTHONPATH=".", **env)


def step(uses: str, **arguments: Any) -> dict[str, Any]:
    return {"id": "own", "uses": uses, "with": arguments, "save_as": "own"}


def assert_nothing_told(tasks: FakeTasks, caplog: pytest.LogCaptureFixture) -> None:
    told = [str(tasks.reports), str(tasks.offers), *(str(vars(record)) for record in caplog.records)]
    for secret in (TOKEN, "another/secret"):
        assert not [text for text in told if secret in text]


@pytest.mark.parametrize("server", ["echo.test", "mis.echo"])
async def test_a_tool_is_given_the_value_and_its_answer_is_kept_without(
    tasks: FakeTasks, worker: None, caplog: pytest.LogCaptureFixture, server: str
) -> None:
    add_server(tasks)
    given = {"auth": "Bearer ${secrets.token}", "list": [{"pin": "${secrets.token}"}], "n": "${params.n}"}
    run = await tasks.enqueue(
        step(server, **given),
        {"uses": "echo.test", "with": {"x": "${steps.own.auth}"}, "save_as": "x"},
        params={"n": 1},
    )
    await tasks.ended(run)
    assert run.output == {"own": {"auth": "Bearer ***", "list": [{"pin": "***"}], "n": 1}, "x": {"x": "Bearer ***"}}
    # The digest is that of what may be shown, the same whatever the value is.
    assert run.steps[0].input_digest == canonical.digest({**given, "n": 1})
    assert_nothing_told(tasks, caplog)


async def test_the_server_is_really_given_the_value(tasks: FakeTasks, worker: None, tmp_path: Path) -> None:
    tasks.add_stdio_server("mis", sys.executable, "-m", "tests.support.effects_server", str(tmp_path / "noted"),
                           PYTHONPATH=".")  # fmt: skip
    run = await tasks.ended(await tasks.enqueue(step("mis.note", text="<${secrets.token}>")), timeout=20)
    assert run.ending == "succeeded"
    assert (tmp_path / "noted").read_text() == f"<{TOKEN}>\n"


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ("fail", '"is ***"'),
        ("refuse", "tool server mis: is ***"),
        ("gossip", "with.word: 'is ***' is not one of [\"***\"]"),
    ],
)
async def test_an_error_is_told_without_the_value(
    tasks: FakeTasks, worker: None, caplog: pytest.LogCaptureFixture, tool: str, message: str
) -> None:
    add_server(tasks, GOSSIP="${secrets.other}")
    arguments = {"word" if tool == "gossip" else "text": "is ${secrets.token}"}
    run = await tasks.ended(await tasks.enqueue(step(f"mis.{tool}", **arguments)))
    assert run.error.message == message
    assert_nothing_told(tasks, caplog)


@pytest.mark.parametrize(("tool", "shown"), [("fail", MAX_MESSAGE), ("refuse", 500), ("gossip", 500)])
async def test_a_message_that_is_cut_is_cut_after_it_was_cleaned(
    tasks: FakeTasks, worker: None, tool: str, shown: int
) -> None:
    add_server(tasks, GOSSIP="${secrets.other}")
    arguments = {"word" if tool == "gossip" else "text": "x" * (shown - 8) + "${secrets.token}" + "y" * shown}
    run = await tasks.ended(await tasks.enqueue(step(f"mis.{tool}", **arguments)))
    assert "xx***" in run.error.message
    assert TOKEN[:4] not in run.error.message


async def test_an_output_that_does_not_fit_is_told_without_the_value(
    tasks: FakeTasks, worker: None, caplog: pytest.LogCaptureFixture
) -> None:
    add_server(tasks)
    for text in ("is ${secrets.token}", "x" * 490 + "${secrets.token}" + "y" * 500):
        run = await tasks.ended(await tasks.enqueue(step("mis.promise", structured={"n": text})))
        assert run.error.message.startswith("the output of mis.promise does not fit its schema: output.n: '")
        assert "***" in run.error.message
        assert TOKEN[:4] not in run.error.message
    assert_nothing_told(tasks, caplog)


async def test_a_secret_is_not_revealed_to_a_server_that_the_owner_may_not_use(
    tasks: FakeTasks, worker: None, caplog: pytest.LogCaptureFixture
) -> None:
    add_server(tasks)
    tasks.tool_servers["mis"].scopes.append("tool:notify")
    run = await tasks.enqueue(step("mis.echo", text="${secrets.nobody}"))
    tasks.agents[run.created_by] = ["tasks:write"]
    await tasks.ended(run)
    # What is wrong with the secret is not even looked at.
    assert run.error.message == (
        f"tool server mis needs tool:notify, which the task's owner, agent {run.created_by}, lacks"
    )


async def test_a_list_of_tools_that_is_cut_is_cut_after_it_was_cleaned(tasks: FakeTasks, worker: None) -> None:
    before = ", ".join([*sorted(name for name in (*TOOLS, "gossip") if name < "knows_"), "knows_"])
    add_server(tasks, GOSSIP="x" * (495 - len(before)) + "${secrets.other}")
    run = await tasks.ended(await tasks.enqueue(step("mis.nothing")))
    assert "x***" in run.error.message
    assert OTHER[:4] not in run.error.message


async def test_whatever_fails_on_the_way_is_told_without_the_value(folder: Path) -> None:
    class Gossip:
        async def server(self, name: str) -> tool_pb2.ToolServer:
            raise ToolFailed(f"{name} knows {TOKEN}", retry_after=5)

    class Anybody:
        async def require(self, owner: str, scopes: Iterable[str], server: str) -> None:
            pass

    secrets = Secrets(folder)
    secrets.look()
    toolbox = Toolbox(Gossip(), McpPool(), Anybody(), BuiltinTools({}), secrets)
    with pytest.raises(ToolFailed) as caught:
        await toolbox.of(User("somebody")).call("mis.echo", {}, timeout=None, key="k")
    assert (str(caught.value), caught.value.retry_after) == ("mis knows ***", 5)


async def test_of_a_secret_that_is_json_no_part_is_told(
    tasks: FakeTasks, worker: None, http_server: str, folder: Path
) -> None:
    """As text that a tool answers it would be read as JSON, whose parts nobody would know."""
    (folder / "token").write_text('{"user": "joe", "password": "hunter22"}')
    run = await tasks.ended(await tasks.enqueue(step("mis.say", text="${secrets.token}")))
    assert run.output["own"] == "***"


async def test_what_a_server_writes_to_standard_error_is_logged_without_the_value(
    tasks: FakeTasks, worker: None, caplog: pytest.LogCaptureFixture
) -> None:
    add_server(tasks, GOSSIP="${secrets.other}")
    for text in ("is ${secrets.token}", "x" * 494 + "${secrets.token}" + "y" * 5000):
        await tasks.ended(await tasks.enqueue(step("mis.complain", text=text)))

    def lines() -> list[str]:
        return [record.line for record in caplog.records if record.message == "tool_server_stderr"]  # type: ignore[attr-defined]

    await await_until(lambda: len(lines()) == 3)
    assert lines() == ["begins with ***", "is ***", "x" * 494 + "***" + "yyy"]
    assert_nothing_told(tasks, caplog)


async def test_a_server_that_does_not_start_is_told_of_without_the_value(
    tasks: FakeTasks, worker: None, caplog: pytest.LogCaptureFixture
) -> None:
    tasks.add_stdio_server("mis", "/bin/sh", "-c", 'echo "no $KEY" >&2', KEY="${secrets.other}")
    run = await tasks.ended(await tasks.enqueue(step("mis.echo")))
    assert run.error.message.startswith("tool server mis cannot be reached")
    tails = [record.stderr for record in caplog.records if record.message == "tool_server_not_opened"]  # type: ignore[attr-defined]
    assert tails[0] == ["no ***"]
    assert_nothing_told(tasks, caplog)


async def test_why_a_server_does_not_answer_is_told_without_what_its_environment_says(
    tasks: FakeTasks, worker: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever may read the one may not read the other, secret of the operator's or not."""
    env = {"PYTHONPATH": ".", "GOSSIP": "written-as-it-is"}
    tasks.add_stdio_server("mis", *PLAIN_SERVER, "refuses", **env)
    await await_until(lambda: "mis" in tasks.tool_errors)
    assert tasks.tool_errors["mis"] == "tool server mis cannot be reached: not with ***"
    tails = [record.stderr for record in caplog.records if record.message == "tool_server_not_opened"]  # type: ignore[attr-defined]
    assert tails[0] == ["begins with ***"]
    assert "written-as-it-is" not in str([vars(record) for record in caplog.records])


async def test_the_tools_of_a_server_are_told_without_the_value(
    tasks: FakeTasks, worker: None, caplog: pytest.LogCaptureFixture
) -> None:
    add_server(tasks, GOSSIP="${secrets.token}")
    await await_until(lambda: "mis" in tasks.tools)
    (gossip,) = [tool for tool in tasks.offers["mis"].tools if tool.address == "mis.gossip"]
    assert gossip.description == "Knows ***."
    word = gossip.input_schema["properties"]["word"]
    assert (list(word["enum"]), word["default"], word["description"]) == (["***"], "***", "is ***")
    # No step can name it any more.
    assert not [address for address in tasks.tools["mis"] if "knows_" in address]
    run = await tasks.ended(await tasks.enqueue(step("mis.nothing")))
    assert "knows_***" in run.error.message
    assert_nothing_told(tasks, caplog)


async def test_a_secret_that_a_step_does_not_refer_to_is_taken_out_as_well(tasks: FakeTasks, worker: None) -> None:
    add_server(tasks, KEY="key ${secrets.other}", LITERAL="$${x}")
    run = await tasks.ended(await tasks.enqueue(step("mis.environment")))
    environment = run.output["own"]
    assert (environment["KEY"], environment["LITERAL"]) == ("key ***", "${x}")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("${secrets.nobody}", "with.text: there is no secret nobody: the worker's operator puts it into a file"),
        ("${secrets.other}", "with.text: secret other is not for mis.echo: the worker's operator lists its tools"),
    ],
)
async def test_a_secret_that_a_step_cannot_have_fails_it(
    tasks: FakeTasks, worker: None, reference: str, message: str
) -> None:
    add_server(tasks)
    run = await tasks.ended(await tasks.enqueue(step("mis.echo", text=reference)))
    error = run.error
    assert (getattr(error, "class"), error.retryable, error.step_id) == (2, False, "own")
    assert error.message.startswith(message)
    assert run.steps[0].input_digest


def gone(process_id: int) -> bool:
    return not Path(f"/proc/{process_id}").exists()


def environment_of(process_id: int) -> list[str]:
    return Path(f"/proc/{process_id}/environ").read_text().split("\0")


async def process_of(tasks: FakeTasks) -> tuple[FakeRun, int]:
    run = await tasks.ended(await tasks.enqueue(step("mis.pid")))
    return run, run.output["own"] if run.ending == "succeeded" else 0


async def test_a_server_is_started_anew_when_its_secret_changes(tasks: FakeTasks, worker: None, folder: Path) -> None:
    add_server(tasks, KEY="${secrets.other}", GOSSIP="x")
    _, first = await process_of(tasks)
    assert (await process_of(tasks))[1] == first
    (folder / "token").write_text("not the secret that it uses")
    assert (await process_of(tasks))[1] == first

    (folder / "other").write_text("a new value\n")
    _, second = await process_of(tasks)
    assert second != first
    await await_until(lambda: gone(first))
    assert "KEY=a new value" in environment_of(second)

    # The former value may still be told, by whoever was given it.
    run = await tasks.ended(await tasks.enqueue(step("mis.echo", text=f"{OTHER}, a new value")))
    assert run.output["own"] == {"text": "***, ***"}


async def test_a_server_whose_secret_is_gone_ends_by_itself(tasks: FakeTasks, worker: None, folder: Path) -> None:
    add_server(tasks, KEY="${secrets.other}")
    _, process = await process_of(tasks)
    (folder / "other").unlink()
    await await_until(lambda: gone(process))
    run, _ = await process_of(tasks)
    assert run.error.retryable
    assert run.error.message.startswith("tool server mis cannot be reached: env.KEY: there is no secret other")
    (folder / "other").write_text("it is back")
    assert (await process_of(tasks))[0].ending == "succeeded"


async def test_a_new_value_is_given_to_the_next_step(
    tasks: FakeTasks, worker: None, folder: Path, tmp_path: Path
) -> None:
    noted = tmp_path / "noted"
    tasks.add_stdio_server("mis", sys.executable, "-m", "tests.support.effects_server", str(noted), PYTHONPATH=".")
    for value in ("the first value", "the second value"):
        (folder / "token").write_text(value)
        await tasks.ended(await tasks.enqueue(step("mis.note", text="${secrets.token}")), timeout=20)
    assert noted.read_text() == "the first value\nthe second value\n"


async def test_a_worker_without_secrets_says_so(tasks: FakeTasks, working: Working) -> None:
    async with working():
        run = await tasks.ended(await tasks.enqueue(step("echo.test", text="${secrets.token}")))
    assert "there is no secret token" in run.error.message
