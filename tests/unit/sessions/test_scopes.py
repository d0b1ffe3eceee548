"""Which scopes there are, and who holds which."""

from importlib.resources import files

import pytest
from baton.api.v1 import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from services.chassis.errors import InvalidArgument
from services.sessions import scopes


def test_every_scope_that_a_method_asks_for_can_be_given() -> None:
    contracts = FileDescriptorSet.FromString((files("baton") / "descriptors.binpb").read_bytes())
    asked = {
        method.options.Extensions[annotations_pb2.policy].scope
        for file in contracts.file
        for service in file.service
        for method in service.method
    }
    assert "agents:admin" in asked
    assert asked - {""} <= scopes.KNOWN


def test_unknown_scopes_are_each_named_with_those_that_are_allowed() -> None:
    with pytest.raises(InvalidArgument) as refused:
        scopes.check_known(["tasks:fly", "tasks:read", "tasks:eat"])
    assert [violation.field for violation in refused.value.violations] == ["scopes[0]", "scopes[2]"]
    assert "'tasks:fly'" in refused.value.violations[0].description
    assert "tasks:write" in refused.value.violations[0].description


def test_tool_servers_may_ask_for_scopes_of_any_name() -> None:
    scopes.check_known(["tool:calendar.read", "tool:Notify-2", "tool:a_b", "tool:" + "n" * 95])
    wrong = ["tool:", "tool:a b", "tool:a:b", "tools:notify", "tool:é", "tool:a\n", "tool:" + "n" * 96]
    with pytest.raises(InvalidArgument, match="or tool:<name>") as refused:
        scopes.check_known(wrong)
    assert len(refused.value.violations) == len(wrong)


def test_admin_holds_everything_and_others_what_they_have() -> None:
    assert scopes.missing(["tasks:read", "audit:read"], ["admin"]) == []
    assert scopes.missing(["tasks:write", "audit:read", "tasks:read"], ["tasks:read"]) == ["audit:read", "tasks:write"]
    assert scopes.missing(["admin"], ["tasks:read"]) == ["admin"]


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (["tasks:read", "runs:read"], ["runs:read", "audit:read"], ("runs:read",)),
        (["admin"], ["tasks:read", "runs:read"], ("runs:read", "tasks:read")),
        (["tasks:read"], ["admin"], ("tasks:read",)),
        (["admin"], ["admin"], ("admin",)),
        (["tasks:read"], ["audit:read"], ()),
    ],
)
def test_what_both_hold(one: list[str], other: list[str], both: tuple[str, ...]) -> None:
    assert scopes.held_by_both(one, other) == both
