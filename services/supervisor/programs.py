"""Which processes make up Baton, and what each is told by its environment."""

import os
from collections.abc import Mapping

from services.supervisor.config import Settings
from services.supervisor.home import Home
from services.supervisor.processes import Program

_GRACE_SECONDS = 15.0
CONTEXTS = ("sessions", "tasks", "workflows")
# Whom each service calls.
_CALLED = {"sessions": ("tasks",), "tasks": ("sessions", "workflows"), "workflows": ("sessions", "tasks")}
# Passed on from the supervisor's own environment, beside everything that begins with one of the prefixes.
_PASSED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "IDEMPOTENCY_TTL_SECONDS")
_PASSED_PREFIXES = ("OTEL_", "GRPC_", "PYTHON", "LC_", "BATON_GATEWAY_")
# Where a rate is counted may be a URL with a password: nobody else gets it.
_GATEWAY_SETTINGS = ("BATON_RATE_LIMIT", "BATON_RATE_LIMIT_STORAGE", "BATON_CORS_ORIGINS")
_PASSED_SETTINGS = (
    "SESSION_RETENTION_DAYS",
    "BATON_LOG_LEVEL",
    "BATON_DEFAULT_TIMEZONE",
    "BATON_DATABASE_POOL_SIZE",
    "BATON_RETENTION_DAYS",
    "BATON_LOG_RETENTION_DAYS",
    "BATON_EVENT_STREAM_KEY",
    "BATON_EVENT_STREAM_GROUP",
    "BATON_EVENT_STREAM_AGENT",
    "BATON_EVENT_STREAM_CLAIM_SECONDS",
    "BATON_EGRESS_ALLOW",
    "BATON_TOOL_SERVERS_FILE",
    "BATON_TOOL_MEMORY_MB",
    "BATON_TOOL_OPEN_FILES",
    "BATON_WORKER_CONCURRENCY",
    "BATON_WORKER_TOOL_CALLS",
    "BATON_WORKER_ROLE",
    "BATON_WORKER_GRACE_SECONDS",
)
_Environment = Mapping[str, str]
"""What one of them is told: values by the names of variables."""


def programs(
    home: Home, addresses: Mapping[str, str], database_urls: Mapping[str, str], settings: Settings
) -> list[Program]:
    """All processes, the services first, those who call them behind."""
    gateways = ["gateway", *(f"gateway-{number}" for number in range(2, settings.gateway_workers + 1))]
    metrics = home.addresses([*CONTEXTS, "worker", *gateways], "prom")
    inherited = _inherited()

    def program(name: str, own: _Environment, module: str = "", grace_seconds: float = _GRACE_SECONDS) -> Program:
        told = {**inherited, "BATON_METRICS_LISTEN": metrics[name], **own}
        return Program(name, module or name, told, home.logs / f"{name}.log", grace_seconds)

    # The worker lets runs finish, gives back what is left, and closes its tool servers.
    worker_grace = settings.worker_grace_seconds + _GRACE_SECONDS
    return [
        *(program(name, _service(name, home, addresses, database_urls[name])) for name in CONTEXTS),
        *(program(name, _gateway(name, addresses, metrics, settings), module="gateway") for name in gateways),
        program("worker", _worker(home, addresses), grace_seconds=worker_grace),
    ]


def _inherited() -> _Environment:
    """What all of them get of the supervisor's own environment."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or name in _PASSED_SETTINGS or name.startswith(_PASSED_PREFIXES)
    }


def _service(name: str, home: Home, addresses: Mapping[str, str], database_url: str) -> _Environment:
    return {
        "BATON_LISTEN": addresses[name],
        "BATON_DATABASE_URL": database_url,
        "BATON_JWKS_FILE": str(home.jwks),
        "BATON_CURSOR_KEY_FILE": str(home.cursor_key),
        "BATON_SERVICES_TOKEN_FILE": str(home.services_token),
        **_where(addresses, *_CALLED[name]),
        **_of_its_own(name, home),
    }


def _of_its_own(name: str, home: Home) -> _Environment:
    """What no other service gets."""
    match name:
        case "sessions":
            return {"BATON_SIGNING_KEY_FILE": str(home.signing_key), "BATON_AUDIT_KEY_FILE": str(home.audit_key)}
        case "tasks" if url := os.environ.get("EVENT_STREAM_URL"):
            # It may hold a password.
            return {"EVENT_STREAM_URL": url}
    return {}


def _gateway(name: str, addresses: Mapping[str, str], metrics: Mapping[str, str], settings: Settings) -> _Environment:
    others = (f"{other}={address}" for other, address in metrics.items() if other != name)
    return {
        "BATON_GATEWAY_NAME": name,
        "BATON_PORT": str(settings.port),
        "BATON_GATEWAY_SHARES_PORT": str(settings.gateway_workers > 1),
        "BATON_AUTH_ADDRESS": addresses["sessions"],
        "BATON_BACKENDS": ",".join(f"baton.{context}.v1={addresses[context]}" for context in CONTEXTS),
        "BATON_METRICS_SOURCES": ",".join(others),
        **{setting: os.environ[setting] for setting in _GATEWAY_SETTINGS if setting in os.environ},
    }


def _worker(home: Home, addresses: Mapping[str, str]) -> _Environment:
    return {
        **_where(addresses, *CONTEXTS),
        "BATON_WORKER_TOKEN_FILE": str(home.worker_token),
        "BATON_SECRETS_DIR": str(home.secrets),
    }


def _where(addresses: Mapping[str, str], *contexts: str) -> _Environment:
    """Where the services of these contexts serve."""
    return {f"BATON_{context.upper()}_ADDRESS": addresses[context] for context in contexts}
