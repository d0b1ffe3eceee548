"""Which processes make up Baton, and what each is told by its environment."""

import os
from collections.abc import Mapping

from services.supervisor.config import Settings
from services.supervisor.home import Home
from services.supervisor.processes import Program

_GRACE_SECONDS = 15.0
CONTEXTS = ("sessions", "tasks", "workflows")
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


def programs(
    home: Home, addresses: Mapping[str, str], database_urls: Mapping[str, str], settings: Settings
) -> list[Program]:
    """All processes, the services first, those who call them behind."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or name in _PASSED_SETTINGS or name.startswith(_PASSED_PREFIXES)
    }
    keys = {"BATON_JWKS_FILE": str(home.jwks), "BATON_CURSOR_KEY_FILE": str(home.cursor_key)}

    gateways = ["gateway", *(f"gateway-{number}" for number in range(2, settings.gateway_workers + 1))]
    metrics = home.addresses([*CONTEXTS, "worker", *gateways], "prom")

    def program(
        name: str, environment: dict[str, str], grace_seconds: float = _GRACE_SECONDS, module: str = ""
    ) -> Program:
        told = inherited | {"BATON_METRICS_LISTEN": metrics[name]} | environment
        return Program(name, module or name, told, home.logs / f"{name}.log", grace_seconds)

    calls = {"BATON_SERVICES_TOKEN_FILE": str(home.services_token)}
    own: dict[str, dict[str, str]] = {
        "sessions": {
            "BATON_SIGNING_KEY_FILE": str(home.signing_key),
            "BATON_AUDIT_KEY_FILE": str(home.audit_key),
            "BATON_TASKS_ADDRESS": addresses["tasks"],
            **calls,
        },
        "tasks": {
            "BATON_SESSIONS_ADDRESS": addresses["sessions"],
            "BATON_WORKFLOWS_ADDRESS": addresses["workflows"],
            **calls,
        },
        "workflows": {
            "BATON_SESSIONS_ADDRESS": addresses["sessions"],
            "BATON_TASKS_ADDRESS": addresses["tasks"],
            **calls,
        },
    }
    # It may hold a password: nobody else gets it.
    if url := os.environ.get("EVENT_STREAM_URL"):
        own["tasks"]["EVENT_STREAM_URL"] = url
    contexts = [
        program(
            name,
            {"BATON_LISTEN": addresses[name], "BATON_DATABASE_URL": database_urls[name]} | keys | own[name],
        )
        for name in CONTEXTS
    ]
    gateway = {
        "BATON_PORT": str(settings.port),
        "BATON_AUTH_ADDRESS": addresses["sessions"],
        "BATON_BACKENDS": ",".join(f"baton.{name}.v1={addresses[name]}" for name in CONTEXTS),
        "BATON_GATEWAY_SHARES_PORT": str(len(gateways) > 1),
        **{name: os.environ[name] for name in _GATEWAY_SETTINGS if name in os.environ},
    }

    def gateway_program(name: str) -> Program:
        others = ",".join(f"{other}={address}" for other, address in metrics.items() if other != name)
        return program(name, gateway | {"BATON_GATEWAY_NAME": name, "BATON_METRICS_SOURCES": others}, module="gateway")

    worker = {
        "BATON_TASKS_ADDRESS": addresses["tasks"],
        "BATON_SESSIONS_ADDRESS": addresses["sessions"],
        "BATON_WORKFLOWS_ADDRESS": addresses["workflows"],
        "BATON_WORKER_TOKEN_FILE": str(home.worker_token),
        "BATON_SECRETS_DIR": str(home.secrets),
    }
    # The worker lets runs finish, gives back what is left, and closes its tool servers.
    worker_grace = settings.worker_grace_seconds + _GRACE_SECONDS
    return [*contexts, *map(gateway_program, gateways), program("worker", worker, worker_grace)]
