"""What a request has made is there, where its answer says."""

from baton.api.v1 import annotations_pb2

from services.gateway.descriptors import load_methods
from tests.e2e.test_audit_rows import World, calls
from tests.support.baton import Baton

PACKAGES = ("baton.sessions.v1", "baton.tasks.v1", "baton.workflows.v1")


def test_whatever_is_made_can_be_read_at_its_location(baton: Baton) -> None:
    policies: dict[str, annotations_pb2.MethodPolicy] = {
        one.descriptor.full_name.removeprefix("baton."): one.policy for one in load_methods(PACKAGES)
    }
    requests = calls(World(baton))
    located = {name for name, policy in policies.items() if policy.location}
    assert located <= requests.keys()
    for name in located:
        made = baton.call(*requests[name]())
        assert made.status_code == 201, (name, made.text)
        read = baton.call("GET", made.headers["Location"])
        assert read.status_code == 200, (name, made.headers["Location"], read.text)
        told, known = made.json(), read.json()
        told = told.get("webhook", told)
        names = {"id", "session_id", "name"} & told.keys() & known.keys()
        assert names, name
        assert {one: told[one] for one in names} == {one: known[one] for one in names}, name
