"""The authorisation matrix: over REST and over gRPC, no method lets in who may not call it, or tells them anything.

The methods, their HTTP rules and their scopes come from the contract: one that is new is held to it as it is. What is
not guarded by a scope is listed here, so that nothing is opened by mistake.
"""

import base64
import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import requests
from baton.api.v1 import annotations_pb2
from google.api import annotations_pb2 as http_annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc.aio import Channel
from joserfc.jwk import OKPKey

from services.chassis.errors import Code, ServiceError, Unimplemented
from services.chassis.ids import new_id
from services.sessions.scopes import ADMIN, KNOWN
from services.supervisor.home import Home
from services.supervisor.programs import CONTEXTS
from tests.support import databases
from tests.support.baton import ROOT, Baton, task
from tests.support.grpc import Signer, channel_of
from tests.support.waiting import wait_until

EFFECTIVE_SECONDS = 5.0
UNKNOWN = new_id()
"""An id that nothing has."""

OWN_RULE: Mapping[str, Mapping[str, Any]] = {
    # Any agent may call these about itself, and about another one with agents:admin. Without that it is not told
    # whether there is such an agent.
    "sessions.v1.AgentService.SetAgentStatus": {"status": "executing"},
    "sessions.v1.AgentService.AddAgentUsage": {"input_tokens": 1},
}
"""Methods for everybody with a token, with a good request to each."""
ABOUT_THE_CALLER = {
    "sessions.v1.AgentService.WhoAmI",
    # Of another agent's calls it takes agents:admin, which is inside the list: see test_usage.
    "sessions.v1.UsageService.RecordUsage",
}
"""Methods for everybody with a token, which are about the caller unless somebody else is named inside."""
CREDENTIAL_IN_REQUEST = {
    # These answer who sends a token or a secret in the request itself: each bad one is refused alike, whoever sends it.
    "api.v1.AuthService.ExchangeToken",
    "sessions.v1.CredentialService.ObtainToken",
    "sessions.v1.CredentialService.RefreshToken",
    "sessions.v1.CredentialService.SurrenderToken",
}

PUBLIC = {"api.v1.HealthService.CheckHealth"}
"""Methods for everybody, with no token at all: what they answer is no secret."""


@dataclass(frozen=True)
class Method:
    """One RPC of the contract."""

    descriptor: MethodDescriptor

    @property
    def name(self) -> str:
        return self.descriptor.full_name.removeprefix("baton.")

    @property
    def policy(self) -> annotations_pb2.MethodPolicy:
        policy: annotations_pb2.MethodPolicy = self.descriptor.GetOptions().Extensions[annotations_pb2.policy]
        return policy

    def rules(self) -> Iterator[tuple[str, str, bool]]:
        """HTTP method, path template, and whether there is a body, of each of its HTTP rules."""
        rule: HttpRule = self.descriptor.GetOptions().Extensions[http_annotations_pb2.http]
        for one in (rule, *rule.additional_bindings):
            if verb := one.WhichOneof("pattern"):
                yield verb.upper(), getattr(one, verb), bool(one.body)

    def request(self, values: Mapping[str, Any]) -> Message:
        """A request with what `values` say of its fields."""
        message = GetMessageClass(self.descriptor.input_type)()
        for name in values.keys() & self.descriptor.input_type.fields_by_name.keys():
            one = self.descriptor.input_type.fields_by_name[name]
            if not one.is_repeated and one.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_INT64):
                setattr(message, name, values[name])
            elif one.enum_type is not None:
                setattr(message, name, one.enum_type.values[1].number)
        return message

    async def call(self, channel: Channel, values: Mapping[str, Any]) -> ServiceError | None:
        """How a service refuses a request; None when it does not."""
        path = f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"
        read = GetMessageClass(self.descriptor.output_type).FromString
        try:
            if self.descriptor.server_streaming:
                async for _ in channel.unary_stream(path, _serialized, read)(self.request(values)):
                    return None
            else:
                await channel.unary_unary(path, _serialized, read)(self.request(values))
        except ServiceError as refused:
            return refused
        return None


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _methods() -> Iterator[Method]:
    for path in sorted(Path(ROOT, "gen", "baton").glob("*/v1/*_pb2.py")):
        module = import_module(f"baton.{path.parts[-3]}.v1.{path.stem}")
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from map(Method, service.methods)


METHODS = {method.name: method for method in _methods()}
SCOPED = [method for method in METHODS.values() if method.policy.scope]
GUARDED = [method for method in METHODS.values() if method.name not in CREDENTIAL_IN_REQUEST | PUBLIC]


@dataclass
class World:
    """A Baton with one of everything in it, and everybody who is to be refused."""

    baton: Baton
    existing: dict[str, str] = field(default_factory=dict)
    """The ids of what there is, by the names that contracts have for them."""
    refused: dict[str, str | None] = field(default_factory=dict)
    """Tokens that are none, or no longer, by what is wrong with them."""
    lacking: dict[str, str] = field(default_factory=dict)
    """Of each scope a token with all others but `admin`."""

    def __post_init__(self) -> None:
        self.session = requests.Session()
        home = Home(self.baton.home)
        self.key = OKPKey.import_key(json.loads(home.signing_key.read_bytes()))
        self.signer = Signer(self.key)
        self.addresses = home.addresses(CONTEXTS)
        self._fill()
        self._refuse()
        scopes = {method.policy.scope for method in SCOPED} | {"agents:admin"}
        self.lacking = {scope: self.baton.agent_token(sorted(KNOWN - {ADMIN, scope})) for scope in sorted(scopes)}
        self._settle()
        self.at_first = self.state()

    def _fill(self) -> None:
        there = self.made("/tasks", task("there", {"uses": "echo.test"}, role="nobody"))
        agent = self.made("/agents", {"name": "there", "scopes": ["tasks:read"]})
        ledger = self.made("/agents/tasks/", {"task": "seo.validate", "run_id": "one", "status": "running"})
        server = {"name": "there", "transport": "http", "url": "https://example.com/mcp", "enabled": False}
        webhook = {"url": "https://example.com/hook", "topics": ["there.is"]}
        workflow = self.made("/api/workflows/there/start", {"build_id": "there"})["workflow_id"]
        done = {"role": "q_assistant", "completed_state": "discovery"}
        self.made(f"/api/workflows/{workflow}/advance", done)
        # Or its time goes on, and nothing is as it was.
        self.made(f"/api/workflows/{workflow}/cancel")
        self.existing = {
            "task_id": there["id"],
            "run_id": self.baton.run_now(there["id"]),
            "agent_id": agent["id"],
            "token_id": self.made(f"/agents/{agent['id']}/tokens")["id"],
            "id": ledger["id"],
            "workflow_id": workflow,
            "handoff_id": self.baton.get("/api/workflows/handoffs")["items"][0]["id"],
            "approval_id": self.made("/approvals", {"run_id": ledger["id"], "action": {"what": "x"}})["approval_id"],
            "name": self.made("/tool-servers", server)["name"],
            "webhook_id": self.made("/webhooks", webhook)["webhook"]["id"],
            "event_id": self.made("/events", {"topic": "there.was", "payload": {}})["details"]["event_id"],
        }

    def _settle(self) -> None:
        """Waits until the audit has what each of the contexts has told of; that comes in order."""
        keys = [new_id(), new_id()]
        self.baton.call("POST", "/events", {"topic": "there.was", "payload": {}}, Idempotency_Key=keys[0])
        self.baton.call("PATCH", f"/agents/{self.existing['agent_id']}", {"model": "m"}, Idempotency_Key=keys[1])
        for key in keys:
            wait_until(lambda: self.baton.get(f"/audit?idempotency_key={key}")["items"])  # noqa: B023

    def made(self, path: str, body: Any = None, token: str | None = None) -> Any:
        """The answer to a POST that must succeed."""
        answer = self.baton.call("POST", path, body or {}, token=token)
        assert answer.ok, answer.text
        return answer.json()

    def _refuse(self) -> None:
        """Each of the tokens that are ended has been used a moment before, and so is remembered."""
        baton = self.baton
        agent, archived = (
            self.made("/agents", {"name": name, "scopes": ["admin"]})["id"] for name in ("ended", "archived")
        )
        secret = self.made(f"/agents/{agent}/credentials")["agent_secret"]
        obtained = self.made("/agents/auth/token", {"agent_id": agent, "agent_secret": secret}, token="")
        revoked, of_archived = self.made(f"/agents/{agent}/tokens"), self.made(f"/agents/{archived}/tokens")["token"]
        ended = (revoked["token"], of_archived, obtained["access_token"])
        assert {baton.call("GET", "/tasks", token=token).status_code for token in ended} == {200}
        began = time.monotonic()
        assert baton.call("DELETE", f"/agents/{agent}/tokens/{revoked['id']}").ok
        assert baton.call("DELETE", f"/agents/{archived}").ok
        self.made("/agents/auth/revoke", {"refresh_token": obtained["refresh_token"]}, token="")
        wait_until(lambda: {baton.call("GET", "/tasks", token=token).status_code for token in ended} == {401})
        assert time.monotonic() - began < EFFECTIVE_SECONDS
        expired = datetime.now(UTC) - timedelta(seconds=1)
        self.refused = {
            "none": None,
            "garbage": "garbage",
            "mistyped": f"{of_archived[:-1]}{'0' if of_archived[-1] != '0' else '1'}",
            "tampered with": f"{self.signer.token(KNOWN)[:-10]}{'A' * 10}",
            "of another key": Signer(OKPKey.generate_key("Ed25519", auto_kid=True)).token(KNOWN),
            "of a key with our key's id": Signer(
                OKPKey.generate_key("Ed25519", parameters={"kid": str(self.key.kid)})
            ).token(KNOWN),
            "not signed": _unsigned(self.signer.token(KNOWN)),
            "expired": self.signer.token(KNOWN, expires_at=expired),
            "revoked": revoked["token"],
            "of an archived agent": of_archived,
            "surrendered": obtained["access_token"],
            "a refresh token": obtained["refresh_token"],
            "an agent's secret": secret,
        }

    def rest(self, rule: tuple[str, str, bool], token: str | None, values: Mapping[str, Any], body: Any = None) -> Any:
        """The answer to a request by an HTTP rule. What fills its path and is not in `values` is an unknown id."""
        verb, template, takes_body = rule
        path = re.sub(r"\{([a-z_.]+)\}", lambda found: str(values.get(found[1], UNKNOWN)), template)
        return self.session.request(
            verb,
            self.baton.url + path,
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            json=(body or {}) if takes_body else None,
            timeout=60,
        )

    def both(self, rule: tuple[str, str, bool], token: str | None, body: Any = None) -> tuple[int, str, dict[str, Any]]:
        """Status, challenge and problem that a request is answered with, the same whether what it names exists."""
        answers = [self.rest(rule, token, values, body) for values in (self.existing, {})]
        told = [(answer.status_code, answer.headers.get("www-authenticate", ""), _told(answer)) for answer in answers]
        assert told[0] == told[1], rule
        return told[0]

    def state(self) -> dict[str, Any]:
        """All that can be read by the HTTP rules, of what there is, but for streams, which do not end."""
        found = {}
        for method in GUARDED:
            if method.policy.HasField("event_stream"):
                continue
            for rule in method.rules():
                if rule[0] == "GET" and (answer := self.rest(rule, self.baton.admin_token, self.existing)).ok:
                    found[rule[1]] = answer.text
        return found


def _unsigned(token: str) -> str:
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return f"{header}.{token.split('.')[1]}.AA"


def _told(answer: requests.Response) -> dict[str, Any]:
    """A problem without what differs from one request to the next."""
    return {name: value for name, value in answer.json().items() if name not in ("instance", "trace_id", "request_id")}


@pytest.fixture(scope="module", params=databases.ENGINES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        environment = {"BATON_DEMO": "0"}
        if request.param == "postgres":
            server = request.getfixturevalue("postgres")
            environment["DATABASE_URL"] = stack.enter_context(databases.postgres_database(server))
        baton = Baton(tmp_path_factory.mktemp("closed") / "home", **environment).start()
        stack.callback(baton.stop)
        yield World(baton)


@pytest.fixture(autouse=True)
def nothing_is_changed(world: World) -> Iterator[None]:
    """Whatever is tried, all is as it was at first, and the audit tells of nothing new."""
    yield
    assert world.state() == world.at_first


def test_what_needs_no_scope_is_said_here() -> None:
    def with_access(access: int) -> set[str]:
        return {name for name, method in METHODS.items() if method.policy.access == access}

    assert with_access(annotations_pb2.ACCESS_AUTHENTICATED) == OWN_RULE.keys() | ABOUT_THE_CALLER
    assert with_access(annotations_pb2.ACCESS_CREDENTIAL_IN_REQUEST) == CREDENTIAL_IN_REQUEST
    assert with_access(annotations_pb2.ACCESS_PUBLIC) == PUBLIC
    unscoped = OWN_RULE.keys() | ABOUT_THE_CALLER | CREDENTIAL_IN_REQUEST | PUBLIC
    assert {method.name for method in SCOPED} == METHODS.keys() - unscoped
    assert {method.policy.scope for method in SCOPED} <= KNOWN


def test_no_rest_path_opens_to_a_bad_token(world: World) -> None:
    for wrong, token in world.refused.items():
        expected: Any = (401, "Bearer", "UNAUTHENTICATED", "TOKEN_MISSING" if token is None else "TOKEN_INVALID", [])
        for method in GUARDED:
            for rule in method.rules():
                status, challenge, told = world.both(rule, token)
                refusal = (status, challenge, told["code"], told["reason"], told["errors"])
                assert refusal == expected, (wrong, rule)


def test_no_rest_path_opens_without_its_scope(world: World) -> None:
    for method in SCOPED:
        for rule in method.rules():
            status, _, told = world.both(rule, world.lacking[method.policy.scope])
            assert (status, told["code"], told["reason"]) == (403, "PERMISSION_DENIED", "SCOPE_MISSING"), rule
            assert method.policy.scope in told["detail"], rule


async def test_no_service_opens_to_a_bad_token(world: World) -> None:
    for wrong, token in world.refused.items():
        expected: Any = (Code.UNAUTHENTICATED, "TOKEN_MISSING" if token is None else "TOKEN_INVALID", {})
        for method in GUARDED:
            async for refused in refusals(world, method, token):
                assert (refused.code, refused.reason, refused.metadata) == expected, (wrong, method.name)


async def test_no_service_opens_without_its_scope(world: World) -> None:
    for method in SCOPED:
        scope = method.policy.scope
        expected: Any = (Code.PERMISSION_DENIED, "SCOPE_MISSING", {"scope": scope})
        async for refused in refusals(world, method, world.signer.token(KNOWN - {ADMIN, scope})):
            assert (refused.code, refused.reason, refused.metadata) == expected, method.name


async def test_nobody_speaks_for_another_agent(world: World) -> None:
    lacking = world.signer.token(KNOWN - {ADMIN, "agents:admin"})
    for name, body in OWN_RULE.items():
        for rule in METHODS[name].rules():
            status, _, told = world.both(rule, world.lacking["agents:admin"], body)
            assert (status, told["reason"]) == (403, "SCOPE_MISSING"), rule
        async for refused in refusals(world, METHODS[name], lacking, {"agent_id": UNKNOWN, **body}):
            assert (refused.reason, refused.metadata) == ("SCOPE_MISSING", {"scope": "agents:admin"}), name


async def test_a_bad_credential_in_a_request_is_worth_nothing(world: World) -> None:
    """Not even beside the administrator's token; and it is not told whether there is such an agent."""
    for wrong in filter(None, world.refused.values()):
        for method in map(METHODS.__getitem__, sorted(CREDENTIAL_IN_REQUEST)):
            if method.name.endswith("SurrenderToken") and wrong in _once_tokens(world):
                continue  # To surrender one that has ended succeeds, and changes nothing.
            names = {one.name for one in method.descriptor.input_type.fields} - {"request_id", "agent_id"}
            body = dict.fromkeys(names, wrong[:512])
            for token in (None, world.baton.admin_token):
                for rule in method.rules():
                    answers = [
                        world.rest(rule, token, {}, body | _agent(method, agent_id))
                        for agent_id in (world.existing["agent_id"], UNKNOWN)
                    ]
                    assert [answer.status_code for answer in answers] == [401, 401], rule
                    assert _told(answers[0]) == _told(answers[1])
                    assert answers[0].json()["reason"] in ("TOKEN_INVALID", "SECRET_INVALID")
                async for refused in refusals(world, method, token, body | {"agent_id": UNKNOWN}):
                    assert refused.code is Code.UNAUTHENTICATED, method.name
                    assert refused.reason in ("TOKEN_INVALID", "SECRET_INVALID"), method.name


def _once_tokens(world: World) -> set[str | None]:
    names = ("revoked", "of an archived agent", "surrendered", "a refresh token")
    return {world.refused[name] for name in names}


def _agent(method: Method, agent_id: str) -> dict[str, str]:
    return {"agent_id": agent_id} if "agent_id" in method.descriptor.input_type.fields_by_name else {}


async def refusals(
    world: World, method: Method, token: str | None, values: Mapping[str, Any] | None = None
) -> AsyncIterator[ServiceError]:
    """How each service that has a method refuses a request to it, by default one that names what there is."""
    served = 0
    for address in world.addresses.values():
        async with channel_of(address, token) as channel:
            refused = await method.call(channel, world.existing if values is None else values)
        assert refused is not None, method.name
        if not isinstance(refused, Unimplemented):
            served += 1
            yield refused
    assert served, f"{method.name} is served nowhere"
