"""The gateway, put together."""

from collections.abc import Mapping

import orjson
from grpc.aio import Channel

from services.chassis.auth import TokenExchange
from services.gateway.backends import StreamCall, UnaryCall
from services.gateway.config import Settings
from services.gateway.descriptors import Binding, Method, load_methods
from services.gateway.edge import Edge
from services.gateway.health import Health, gateway_version
from services.gateway.openapi.document import describe
from services.gateway.pages import add_pages
from services.gateway.request_form import RequestForm
from services.gateway.routes import Endpoint, Router, parameter_names
from services.gateway.rpc import byte_stream_endpoint, event_endpoint, unary_endpoint
from services.gateway.transcode.parser import Parsers
from services.gateway.transcode.printer import Printers


def build_app(
    settings: Settings, channels: Mapping[str, Channel], exchange: TokenExchange, comments: Mapping[str, str]
) -> Edge:
    """The ASGI application for the packages that `channels` lead to, documented with `comments`.

    Raises ConfigurationError when a contract declares what cannot be served.
    """
    router, parsers, printers = Router(), Parsers(), Printers()
    methods = load_methods(channels)

    def endpoint(method: Method, binding: Binding) -> Endpoint:
        form = RequestForm(method, binding, parameter_names(binding.template), parsers)
        channel = channels[method.package]
        if method.descriptor.server_streaming:
            stream = StreamCall(method, channel, settings.stream_timeout_seconds)
            if method.streams_events:
                return event_endpoint(method, form, stream, exchange, printers)
            return byte_stream_endpoint(method, form, stream, exchange)
        call = UnaryCall(method, channel, settings.timeout_seconds)
        return unary_endpoint(method, binding, form, call, exchange, printers)

    for method in methods:
        for binding in method.bindings:
            router.add(binding.verb, binding.template, endpoint(method, binding))
    Health(channels).add_routes(router)
    add_pages(router, orjson.dumps(describe(methods, comments, gateway_version())))
    return Edge(router)
