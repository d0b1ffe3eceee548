"""The endpoints that REST has because a contract declares them."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

import orjson
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from services.chassis.auth import TokenExchange
from services.chassis.errors import Unavailable
from services.gateway.backends import Metadata, StreamCall, UnaryCall, call_metadata
from services.gateway.clients import while_connected
from services.gateway.credentials import access_token, set_proven
from services.gateway.descriptors import VERSION_FIELD, Binding, Method
from services.gateway.event_stream import EventStream, event_writer
from services.gateway.lasting import LastingCall
from services.gateway.line_stream import LineStream, wants_lines
from services.gateway.location import HEADER as LOCATION_HEADER
from services.gateway.location import Locate
from services.gateway.request_form import RequestForm
from services.gateway.routes import Endpoint, Values
from services.gateway.transcode.printer import Print, Printers


def unary_endpoint(
    method: Method,
    binding: Binding,
    form: RequestForm,
    call: UnaryCall,
    exchange: TokenExchange,
    printers: Printers,
    locate: Locate | None,
) -> Endpoint:
    """One RPC that answers JSON."""
    to_json = _response_printer(method, binding, printers)
    status = method.policy.success_status or 200

    async def serve(request: Request, values: Values) -> Response:
        # The caller is asked for first: somebody unknown cannot make us read a body.
        metadata = await _metadata(method, request, exchange)
        message = await form.read(request, values)
        with while_connected(request):
            response, is_replay = await call(message, metadata)
        _note_taken(method, request)
        headers = {"Idempotent-Replayed": "true"} if is_replay else {}
        if method.policy.versioned:
            headers["ETag"] = _etag(response, binding)
        if locate is not None:
            headers[LOCATION_HEADER] = locate(response)
        return Response(orjson.dumps(to_json(response)), status, headers, "application/json")

    return serve


def byte_stream_endpoint(method: Method, form: RequestForm, call: StreamCall, exchange: TokenExchange) -> Endpoint:
    """One RPC whose bytes are handed on as they come."""
    filename = method.policy.download_filename

    async def serve(request: Request, values: Values) -> Response:
        metadata = await _metadata(method, request, exchange)
        chunks = cast("AsyncGenerator[HttpBody, None]", call(await form.read(request, values), metadata))
        with while_connected(request):
            # Until the first chunk is here a failure can still be answered as one.
            first = await anext(chunks, HttpBody(content_type="application/octet-stream"))
        _note_taken(method, request)
        return Download(first, chunks, filename)

    return serve


def message_stream_endpoint(
    method: Method, form: RequestForm, call: StreamCall, exchange: TokenExchange, printers: Printers
) -> Endpoint:
    """One RPC whose messages are events, or lines for a client that accepts these."""
    to_json = printers.of(method.descriptor.output_type)
    to_event = event_writer(to_json, method.policy.event_stream.id_field)

    async def serve(request: Request, values: Values) -> Response:
        # The caller is asked for first: somebody unknown cannot make us read a body.
        await _metadata(method, request, exchange)
        messages = LastingCall(method, call, await form.read(request, values), request, exchange).messages()
        with while_connected(request):
            # Until the first message is here a failure can still be answered as one.
            first = await _first(messages)
        if first is None:
            raise Unavailable("it ended before it began: come again in a moment", retry_after=1)
        _note_taken(method, request)
        if wants_lines(request):
            return LineStream(request, first, messages, to_json)
        return EventStream(request, first, messages, to_event)

    return serve


async def _first(messages: AsyncIterator[Message | None]) -> Message | None:
    """The first message, however long it takes; None when there is none."""
    async for message in messages:
        if message is not None:
            return message
    return None


class Download(StreamingResponse):
    """Bytes as they come. A failure midway is raised, so that the server breaks the connection."""

    def __init__(self, first: HttpBody, rest: AsyncGenerator[HttpBody, None], filename: str) -> None:
        headers = {"Content-Disposition": f'attachment; filename="{filename}"'} if filename else None
        super().__init__(_bytes(first, rest), headers=headers, media_type=first.content_type)
        self._chunks = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Closed whatever happens, so that a client that leaves ends the work behind as well.
        async with aclosing(self._chunks):
            await super().__call__(scope, receive, send)


async def _bytes(first: HttpBody, rest: AsyncIterator[HttpBody]) -> AsyncIterator[bytes]:
    yield first.data
    async for chunk in rest:
        yield chunk.data


async def _metadata(method: Method, request: Request, exchange: TokenExchange) -> Metadata:
    token = "" if method.is_open else await access_token(request, exchange)
    return call_metadata(request.scope["request_id"], token)


def _note_taken(method: Method, request: Request) -> None:
    if not method.is_open:
        set_proven(request)


def _etag(response: Message, binding: Binding) -> str:
    answered = getattr(response, binding.response_body) if binding.response_body else response
    return f'"{getattr(answered, VERSION_FIELD)}"'


def _response_printer(method: Method, binding: Binding, printers: Printers) -> Print:
    descriptor = method.descriptor.output_type
    if binding.response_body:
        return printers.of_field(descriptor.fields_by_name[binding.response_body])
    return printers.of(descriptor)
