"""Acting for another agent: with what it holds and may be passed on, in the course of a run, for a minute."""

from typing import Any

import orjson
import pytest
from baton.api.v1.auth_service_pb2 import ActForAgentRequest
from baton.api.v1.auth_service_pb2_grpc import AuthServiceStub
from baton.sessions.v1.agent_service_pb2 import ArchiveAgentRequest, CreateAgentRequest
from joserfc import jwt
from joserfc.jwk import KeySet

from services.chassis.auth import Verifier
from services.chassis.call import Caller
from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from services.chassis.ids import new_id
from services.chassis.timestamps import from_timestamp
from services.sessions.scopes import PASSED_ON
from tests.integration.sessions.running import Sessions

WORKER, RUN = new_id(), new_id()


def worker(sessions: Sessions, *scopes: str) -> AuthServiceStub:
    return AuthServiceStub(sessions.channel(sessions.signer.token(scopes or ["agents:act"], agent_id=WORKER)))


async def owner(sessions: Sessions, *scopes: str) -> str:
    request = CreateAgentRequest(name=f"owner-{new_id()}", scopes=scopes, role="planner")
    agent_id: str = (await sessions.caller(["admin"]).CreateAgent(request)).agent.id
    return agent_id


async def test_the_token_is_the_owners_with_the_scopes_asked_for(sessions: Sessions) -> None:
    agent_id = await owner(sessions, "events:publish", "tasks:write", "tasks:read")
    request = ActForAgentRequest(agent_id=agent_id.upper(), scopes=["tasks:write"], run_id=RUN.upper())
    answer = await worker(sessions).ActForAgent(request)
    verifier = Verifier(sessions.settings.jwks_file, sessions.clock)
    caller, _ = verifier.verify(answer.access_token)
    assert caller == Caller(agent_id, frozenset({"tasks:write"}), caller.token_id, role="planner", run_id=RUN)
    claims = _claims(sessions, answer.access_token)
    assert claims["act"] == {"sub": WORKER}
    assert (from_timestamp(answer.expires_at) - sessions.clock.now()).total_seconds() <= 60


async def test_whoever_holds_admin_passes_on_no_more_than_was_asked_for(sessions: Sessions) -> None:
    agent_id = await owner(sessions, "admin")
    answer = await worker(sessions).ActForAgent(ActForAgentRequest(agent_id=agent_id, scopes=sorted(PASSED_ON)))
    verified, _ = Verifier(sessions.settings.jwks_file, sessions.clock).verify(answer.access_token)
    assert verified.scopes == PASSED_ON
    assert verified.run_id == ""


@pytest.mark.parametrize("scope", ["admin", "agents:act", "agents:admin", "tools:admin", "runs:work", "nonsense"])
async def test_what_is_not_passed_on_is_refused(sessions: Sessions, scope: str) -> None:
    agent_id = await owner(sessions, "admin")
    with pytest.raises(InvalidArgument) as refused:
        await worker(sessions).ActForAgent(ActForAgentRequest(agent_id=agent_id, scopes=["tasks:write", scope]))
    assert [fault.field for fault in refused.value.violations] == ["scopes[1]"]


async def test_what_the_owner_lacks_nobody_does_for_it(sessions: Sessions) -> None:
    agent_id = await owner(sessions, "tasks:read")
    with pytest.raises(PermissionDenied, match=f"agent {agent_id} does not hold events:publish") as refused:
        await worker(sessions).ActForAgent(ActForAgentRequest(agent_id=agent_id, scopes=["events:publish"]))
    assert refused.value.reason == "SCOPES_NOT_HELD"


async def test_for_nobody_nobody_acts(sessions: Sessions) -> None:
    with pytest.raises(NotFound) as refused:
        await worker(sessions).ActForAgent(ActForAgentRequest(agent_id=new_id(), scopes=["events:publish"]))
    assert refused.value.reason == "AGENT_NOT_FOUND"


async def test_for_an_archived_agent_nobody_acts(sessions: Sessions) -> None:
    agent_id = await owner(sessions, "events:publish")
    await sessions.caller(["admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=agent_id))
    with pytest.raises(FailedPrecondition) as refused:
        await worker(sessions).ActForAgent(ActForAgentRequest(agent_id=agent_id, scopes=["events:publish"]))
    assert refused.value.reason == "AGENT_ARCHIVED"


async def test_it_takes_the_scope(sessions: Sessions) -> None:
    agent_id = await owner(sessions, "tasks:write")
    with pytest.raises(PermissionDenied) as refused:
        await worker(sessions, "agents:admin", "agents:read", "runs:work").ActForAgent(
            ActForAgentRequest(agent_id=agent_id, scopes=["tasks:write"])
        )
    assert refused.value.metadata == {"scope": "agents:act"}


def _claims(sessions: Sessions, token: str) -> dict[str, Any]:
    keys = KeySet.import_key_set(orjson.loads(sessions.settings.jwks_file.read_bytes()))
    return dict(jwt.decode(token, keys, algorithms=["Ed25519"]).claims)
