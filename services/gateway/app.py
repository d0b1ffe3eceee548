"""The gateway, put together."""

from collections.abc import Mapping

import orjson
from grpc.aio import Channel

from services.chassis.auth import TokenExchange
from services.chassis.version import installed_version
from services.gateway.backends import StreamCall, UnaryCall
from services.gateway.browsers import Browsers
from services.gateway.capacity import Capacity
from services.gateway.config import Settings
from services.gateway.descriptors import KEY_HEADER, Binding, Method, load_methods
from services.gateway.edge import Edge
from services.gateway.health import Health
from services.gateway.location import locator
from services.gateway.metrics import Metrics
from services.gateway.openapi.document import describe
from services.gateway.pages import add_pages
from services.gateway.path_template import parameter_names
from services.gateway.rate_limit import RateLimit
from services.gateway.request_form import RequestForm
from services.gateway.routes import Endpoint, Router
from services.gateway.rpc import byte_stream_endpoint, message_stream_endpoint, unary_endpoint
from services.gateway.transcode.parser import Parsers
from services.gateway.transcode.printer import Printers


def build_app(
    settings: Settings, channels: Mapping[str, Channel], exchange: TokenExchange, comments: Mapping[str, str]
) -> Edge:
    """The ASGI application for the packages that `channels` lead to, documented with `comments`.

    Raises ConfigurationError when a contract declares what cannot be served.
    """
    # Imported only by the process that needs it: the library takes as long as all the rest that is forked from.
    from services.gateway.mcp.catalogue import catalogue_of
    from services.gateway.mcp.endpoint import PATH, mcp_endpoint

    router, parsers, printers = Router(), Parsers(), Printers()
    methods = load_methods(channels)

    def unary_call(method: Method, key_name: str = KEY_HEADER) -> UnaryCall:
        return UnaryCall(method, channels[method.package], settings.timeout_seconds, key_name)

    def endpoint(method: Method, binding: Binding) -> Endpoint:
        form = RequestForm(method, binding, parameter_names(binding.template), parsers)
        if method.descriptor.server_streaming:
            stream = StreamCall(method, channels[method.package], settings.stream_timeout_seconds)
            if method.streams_events:
                return message_stream_endpoint(method, form, stream, exchange, printers)
            return byte_stream_endpoint(method, form, stream, exchange)
        locate = locator(method, methods)
        return unary_endpoint(method, binding, form, unary_call(method), exchange, printers, locate)

    for method in methods:
        for binding in method.bindings:
            router.add(binding.verb, binding.template, endpoint(method, binding))
    Health(channels).add_routes(router)
    Metrics(settings.name, settings.metrics_addresses(), exchange).add_routes(router)
    add_pages(router, orjson.dumps(describe(methods, comments, installed_version())))
    catalogue = catalogue_of(methods, comments, unary_call, parsers, printers)
    router.add("POST", PATH, mcp_endpoint(catalogue, exchange, installed_version()))
    return Edge(
        router,
        RateLimit(settings.rate_limit, settings.rate_limit_storage),
        Capacity(settings.concurrency),
        Browsers(settings.cors_origins, settings.https),
    )
