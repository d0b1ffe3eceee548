"""The metrics of the gateway, and of the processes that it is told of, on one page."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from starlette.requests import Request
from starlette.responses import Response

from services import metric_names
from services.chassis import exposition
from services.chassis.auth import TokenExchange
from services.chassis.errors import ScopeMissing
from services.gateway.credentials import checked_access_token, claims_of
from services.gateway.routes import Router, Values

SCOPE = "metrics:read"
_ADMIN = "admin"
_SERVICE = "service_name"
_TIMEOUT_SECONDS = 2.0


class Metrics:
    """What is shown at /metrics to whoever holds SCOPE."""

    def __init__(self, name: str, sources: Mapping[str, str], exchange: TokenExchange) -> None:
        """This gateway's name, and addresses as BATON_METRICS_LISTEN has them, by the name of the process."""
        self._name = name
        self._sources = sources
        self._exchange = exchange

    def add_routes(self, router: Router) -> None:
        router.add("GET", exposition.PATH, self._show)

    async def _show(self, request: Request, values: Values) -> Response:
        scopes = claims_of(await checked_access_token(request, self._exchange)).get("scopes", ())
        if SCOPE not in scopes and _ADMIN not in scopes:
            raise ScopeMissing(SCOPE)
        told = await asyncio.gather(
            asyncio.to_thread(lambda: exposition.text().decode()),
            *(_ask(address) for address in self._sources.values()),
        )
        texts = dict(zip((self._name, *self._sources), told, strict=True))
        page = await asyncio.to_thread(merged, texts)
        return Response(page, media_type=CONTENT_TYPE_LATEST)


def merged(texts: Mapping[str, str | None]) -> bytes:
    """The metrics of several processes, by name, as one text. None is that of a process that did not answer."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Merged(texts))
    return generate_latest(registry)


class _Merged(Collector):
    def __init__(self, texts: Mapping[str, str | None]) -> None:
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        answered = GaugeMetricFamily(
            metric_names.METRICS_SOURCE_UP, "whether a process told its metrics: 1 or 0", labels=[_SERVICE]
        )
        found: dict[str, Metric] = {}
        for name, text in self._texts.items():
            service = f"baton-{name}"
            answered.add_metric([service], float(text is not None))
            for family in text_string_to_metric_families(text or ""):
                known = found.setdefault(family.name, family)
                samples = list(_labelled(family.samples, service))
                known.samples = samples if known is family else [*known.samples, *samples]
        return [*found.values(), answered]


def _labelled(samples: Iterable[Sample], service: str) -> Iterator[Sample]:
    for sample in samples:
        yield sample._replace(labels={**sample.labels, _SERVICE: service})


async def _ask(address: str) -> str | None:
    """What a process tells; None when it does not."""
    # Only where somebody asks: it takes long to import.
    import httpx2

    unix = address.startswith("unix:")
    transport = httpx2.AsyncHTTPTransport(uds=unquote(address.removeprefix("unix:")) if unix else None)
    host = "localhost" if unix else address
    try:
        async with httpx2.AsyncClient(transport=transport, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            answer = await client.get(f"http://{host}{exposition.PATH}")
            return answer.raise_for_status().text
    except httpx2.HTTPError:
        return None
