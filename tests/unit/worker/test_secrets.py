"""The folder with secrets: what is read, when, and who is given it."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.pipeline.errors import TemplateError
from services.pipeline.templates import render
from services.worker.secrets import folder as folder_module
from services.worker.secrets.files import MAX_BYTES
from services.worker.secrets.folder import Secrets
from tests.support.waiting import wait_until

TOKEN = "ghp_4fT9vXw2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "services.worker")


@pytest.fixture
def secrets(folder: Path) -> Secrets:
    return Secrets(folder)


def write(folder: Path, name: str, value: str | bytes, *tools: str) -> None:
    (folder / name).write_bytes(value if isinstance(value, bytes) else value.encode())
    if tools:
        (folder / f"{name}.tools").write_text("\n".join(tools))


def given(secrets: Secrets, name: str, tool: str = "github.search") -> Any:
    """What the tool is given for a reference to the secret."""
    return secrets.reveal(tool, render({"value": f"${{secrets.{name}}}"}, {}))["value"]


def refusal(secrets: Secrets, name: str, tool: str = "github.search") -> str:
    with pytest.raises(TemplateError) as caught:
        given(secrets, name, tool)
    return str(caught.value)


def in_environment(secrets: Secrets, text: str) -> str:
    return secrets.environment({"KEY": text})["KEY"]


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("12345678", "12345678"),
        ("12345678\n", "12345678"),
        ("12345678\r\n", "12345678"),
        ("12345678\n\n", "12345678\n"),
        (" pä\tssword ", " pä\tssword "),
        ("x" * MAX_BYTES, "x" * MAX_BYTES),
    ],
)
def test_a_secret_is_what_its_file_says(folder: Path, secrets: Secrets, content: str, value: str) -> None:
    write(folder, "token", content.encode()[:MAX_BYTES])
    assert in_environment(secrets, "-${secrets.token}-") == f"-{value}-"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"1234567\n", "its file has fewer than 8 characters"),
        (b"", "its file has fewer than 8 characters"),
        (b"x" * (MAX_BYTES + 1), "token has more than 65536 bytes"),
        (b"1234567\xff", "token is not UTF-8"),
        (b"1234\x005678", "its file has a NUL character in it"),
    ],
)
def test_what_cannot_be_used_says_why_and_is_logged_once(
    folder: Path, secrets: Secrets, caplog: pytest.LogCaptureFixture, content: bytes, fault: str
) -> None:
    write(folder, "token", content, "github.*")
    assert refusal(secrets, "token") == f"with.value: secret token cannot be used: {fault}"
    refusal(secrets, "token")
    assert [(record.message, record.secret, record.error) for record in caplog.records] == [  # type: ignore[attr-defined]
        ("secret_not_usable", "token", fault)
    ]


def test_names_that_are_none_are_told_and_hidden_files_and_folders_are_passed_over(
    folder: Path, secrets: Secrets, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("github-token", "1st", ".hidden", "..data"):
        write(folder, name, TOKEN)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to(folder / "nowhere")
    for name in ("a_loop", "the_loop"):
        (folder / name).symlink_to(folder / name)
    write(folder, "token", "a good value", "github.*")
    assert given(secrets, "token") == "a good value"
    refused = [record for record in caplog.records if record.message == "secret_not_usable"]
    assert sorted(record.secret for record in refused) == ["1st", "github-token"]  # type: ignore[attr-defined]
    assert "there is no secret hidden" in refusal(secrets, "hidden")
    assert secrets.clean(TOKEN) == TOKEN


@pytest.mark.parametrize(
    ("tools", "tool", "allowed"),
    [
        ([], "github.search", False),
        (["github.search"], "github.search", True),
        (["github.*"], "github.search", True),
        (["http.request  # and no other", "", "# github.*"], "http.request", True),
        (["http.request", "# github.*"], "github.search", False),
        (["github.search"], "github.search_all", False),
        (["github.search_all"], "github.search", False),
        (["git.*"], "github.search", False),
        (["github.*"], "git.search", False),
    ],
)
def test_a_tool_is_given_a_secret_only_when_it_is_listed(
    folder: Path, secrets: Secrets, tools: list[str], tool: str, allowed: bool
) -> None:
    write(folder, "token", TOKEN, *tools)
    if allowed:
        assert given(secrets, "token", tool) == TOKEN
    else:
        wanted = f"secret token is not for {tool}: the worker's operator lists its tools in token.tools"
        assert refusal(secrets, "token", tool) == f"with.value: {wanted}"
    # The environment of tool servers is administrators' business.
    assert in_environment(secrets, "${secrets.token}") == TOKEN


@pytest.mark.parametrize("line", ["*", "github", "github.", "github.se*", "*.search", "GitHub.search", "a.b c.d"])
def test_a_line_that_is_no_tool_makes_the_secret_unusable(folder: Path, secrets: Secrets, line: str) -> None:
    write(folder, "token", TOKEN, "# tools", line, "github.*")
    assert "secret token cannot be used: line 2 of token.tools must be a tool" in refusal(secrets, "token")


def test_a_secret_that_is_not_there_is_named_with_what_to_do(folder: Path, secrets: Secrets) -> None:
    assert refusal(secrets, "token") == (
        "with.value: there is no secret token: "
        "the worker's operator puts it into a file of that name in BATON_SECRETS_DIR"
    )
    assert "there is no secret token" in refusal(Secrets(), "token")
    with pytest.raises(TemplateError, match=r"env\.KEY: there is no secret token"):
        in_environment(secrets, "${secrets.token}")
    with pytest.raises(TemplateError, match=r"env\.KEY: may hold no other template"):
        in_environment(secrets, "${HOME}")


def replace_in_place(path: Path, value: str) -> None:
    path.write_text(value)


def replace_by_another(path: Path, value: str) -> None:
    path.with_name(".new").write_text(value)
    path.with_name(".new").replace(path)


def replace_keeping_its_time(path: Path, value: str) -> None:
    before = path.stat()

    def replaced() -> bool:
        path.write_text(value)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return path.stat().st_ctime_ns != before.st_ctime_ns

    wait_until(replaced)


@pytest.mark.parametrize(
    ("replace", "value"),
    [(replace_in_place, "a longer value"), (replace_by_another, "value-two"), (replace_keeping_its_time, "value-two")],
)
def test_a_changed_file_is_read_before_the_next_use(
    folder: Path,
    secrets: Secrets,
    monkeypatch: pytest.MonkeyPatch,
    replace: Callable[[Path, str], None],
    value: str,
) -> None:
    monkeypatch.setattr(folder_module, "_SETTLED_NANOSECONDS", -(10**18))
    write(folder, "token", "value-one", "github.*")
    assert given(secrets, "token") == "value-one"
    replace(folder / "token", value)
    assert given(secrets, "token") == value
    assert in_environment(secrets, "${secrets.token}") == value


def test_a_file_that_changes_twice_at_once_is_read_twice(
    folder: Path, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems tell times in steps; here all that happens now happens at one time."""
    monkeypatch.setattr(folder_module, "_state", lambda file: (1,))
    for value in ("value-one", "value-two"):
        write(folder, "token", value, "github.*")
        assert given(secrets, "token") == value


def test_a_folder_that_stays_as_it_is_is_not_read_again(
    folder: Path, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "token", TOKEN, "github.*")
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    monkeypatch.setattr(folder_module, "_SETTLED_NANOSECONDS", -(10**18))
    assert given(secrets, "token") == TOKEN
    monkeypatch.setattr(folder_module, "_read_secret", lambda *_, **__: pytest.fail("read again"))
    assert given(secrets, "token") == TOKEN


def test_mounts_of_kubernetes_are_followed(folder: Path, secrets: Secrets) -> None:
    for version, value in (("..1", "value-one"), ("..2", "value-two")):
        (folder / version).mkdir()
        write(folder / version, "token", value, "github.*")
    for name in ("token", "token.tools"):
        (folder / name).symlink_to(Path("..data") / name)
    for version, value in (("..1", "value-one"), ("..2", "value-two")):
        (folder / "..next").symlink_to(version)
        (folder / "..next").replace(folder / "..data")
        assert given(secrets, "token") == value


def test_a_changed_list_of_tools_counts_at_once(folder: Path, secrets: Secrets) -> None:
    write(folder, "token", TOKEN, "github.*")
    assert given(secrets, "token") == TOKEN
    write(folder, "token", TOKEN, "http.*")
    assert "is not for github.search" in refusal(secrets, "token")
    (folder / "token").unlink()
    assert "there is no secret token" in refusal(secrets, "token")


def test_former_values_are_still_redacted(folder: Path, secrets: Secrets) -> None:
    for number in range(3):
        write(folder, "token", f"the-value-{number}", "github.*")
        secrets.look()
    (folder / "token").unlink()
    secrets.look()
    assert secrets.clean("the-value-0 the-value-1 the-value-2 the-value-3") == "*** *** *** the-value-3"
    for number in range(20, 40):
        write(folder, "token", f"the-value-{number}", "github.*")
        secrets.look()
    # Not for ever, or a worker would grow with each rotation.
    assert secrets.clean("the-value-0 the-value-20 the-value-31 the-value-39") == "the-value-0 the-value-20 *** ***"


def test_a_folder_that_is_gone_has_no_secrets(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    secrets = Secrets(folder / "gone")
    assert "there is no secret token" in refusal(secrets, "token")
    assert not caplog.records


def test_logs_and_texts_of_objects_name_secrets_without_their_values(
    folder: Path, secrets: Secrets, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, "token", TOKEN, "github.*")
    secrets.look()
    (record,) = caplog.records
    assert (record.message, record.secrets) == ("secrets_read", ["token"])  # type: ignore[attr-defined]
    assert TOKEN not in repr(secrets._known)
