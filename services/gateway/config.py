"""What the gateway needs to be told."""

from dataclasses import dataclass

from services.chassis.config import ConfigurationError, setting


@dataclass(frozen=True)
class Settings:
    """Filled from the environment."""

    backends: str = setting(
        "BATON_BACKENDS",
        help="the services behind the gateway, as proto package=address pairs: baton.x.v1=127.0.0.1:7001,...",
    )
    auth_address: str = setting("BATON_AUTH_ADDRESS", help="host:port or unix:/path of AuthService")
    host: str = setting("BATON_GATEWAY_HOST", default="127.0.0.1", help="the address to listen on")
    port: int = setting("BATON_PORT", default=8080, help="the port to listen on")
    # More than the longest that a call may be told to wait for something, which is 30 s.
    timeout_seconds: float = setting("BATON_GATEWAY_TIMEOUT_SECONDS", default=40.0, help="how long a call may take")
    stream_timeout_seconds: float = setting(
        "BATON_GATEWAY_STREAM_TIMEOUT_SECONDS", default=3600.0, help="how long a download may take"
    )
    grace_seconds: float = setting(
        "BATON_GATEWAY_GRACE_SECONDS", default=10.0, help="how long requests in progress may take when it stops"
    )

    concurrency: int = setting(
        "BATON_GATEWAY_CONCURRENCY", default=1000, help="how many requests may be in progress at one time, 1 or more"
    )
    rate_limit: str = setting(
        "BATON_RATE_LIMIT", default="1000/second", help="how often one caller may ask, such as 100/second, or off"
    )
    rate_limit_storage: str = setting(
        "BATON_RATE_LIMIT_STORAGE", default="", help="redis:// or valkey:// URL where several gateways count together"
    )
    cors_origins: str = setting(
        "BATON_CORS_ORIGINS", default="", help="the origins whose scripts may call, separated by commas"
    )
    https: bool = setting(
        "BATON_GATEWAY_HTTPS", default=False, help="whether browsers reach the gateway over https alone"
    )

    shares_port: bool = setting(
        "BATON_GATEWAY_SHARES_PORT", default=False, help="whether other gateways listen on the same port"
    )
    name: str = setting(
        "BATON_GATEWAY_NAME", default="gateway", help="what /metrics calls this gateway beside its sources"
    )
    metrics_sources: str = setting(
        "BATON_METRICS_SOURCES",
        default="",
        help="whose metrics /metrics shows beside the gateway's own: a=127.0.0.1:9102,b=unix:/srv/b.prom",
    )

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigurationError(f"BATON_GATEWAY_CONCURRENCY is {self.concurrency}: it must be 1 or more")

    def addresses(self) -> dict[str, str]:
        """The address of each package. Raises ConfigurationError."""
        return _pairs(self.backends, "BATON_BACKENDS", "package=host:port, each package once")

    def metrics_addresses(self) -> dict[str, str]:
        """Where each process whose metrics are shown serves them, by name. Raises ConfigurationError."""
        if not self.metrics_sources:
            return {}
        return _pairs(self.metrics_sources, "BATON_METRICS_SOURCES", "name=host:port or name=unix:/path, each once")


def _pairs(text: str, variable: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in text.split(","):
        name, equals, address = pair.strip().partition("=")
        if not (name and equals and address) or name in found:
            raise ConfigurationError(f"{variable} has {pair.strip()!r}: write {form}")
        found[name] = address
    return found
