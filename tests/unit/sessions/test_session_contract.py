"""The contract of sessions says what the model does."""

import pytest
from baton.sessions.v1 import session_pb2

from services.chassis.enums import choices
from services.sessions.convert.enums import from_enum, to_enum
from services.sessions.models.session import SessionEvent, SessionStatus


@pytest.mark.parametrize(
    ("kind", "wire"), [(SessionStatus, session_pb2.SessionStatus), (SessionEvent, session_pb2.SessionEvent)]
)
def test_every_value_has_its_name_on_the_wire(kind: type[SessionStatus], wire: type) -> None:
    assert sorted(choices(wire.DESCRIPTOR)) == sorted(kind)  # type: ignore[attr-defined]
    assert [from_enum(kind, wire, to_enum(member, wire)) for member in kind] == list(kind)
