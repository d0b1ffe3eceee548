"""What methods declare about themselves."""

import pytest
from baton.api.v1 import annotations_pb2

from services.chassis.call import Caller
from services.chassis.config import ConfigurationError
from services.chassis.policy import policies
from tests.unit.chassis.kiosk import contract


def test_every_method_is_found_by_its_path() -> None:
    found = policies([contract("kiosk").descriptor])
    assert found["/kiosk.v1.KioskService/Buy"].scope == "kiosk:write"
    assert found["/kiosk.v1.KioskService/Buy"].mutates
    assert found["/kiosk.v1.KioskService/Ask"].access == annotations_pb2.ACCESS_AUTHENTICATED
    assert len(found) == 6


def test_a_method_without_a_scope_refuses_to_start() -> None:
    with pytest.raises(ConfigurationError, match=r"/unguarded\.v1\.UnguardedService/Open declares no scope"):
        policies([contract("kiosk").descriptor, contract("unguarded").descriptor])


def test_admin_holds_every_scope() -> None:
    assert Caller("a", frozenset({"kiosk:read"})).holds("kiosk:read")
    assert not Caller("a", frozenset({"kiosk:read"})).holds("kiosk:write")
    assert Caller("a", frozenset({"admin"})).holds("kiosk:write")
    assert not Caller("a").holds("admin")
