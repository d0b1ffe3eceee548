"""Calls to the services behind the gateway."""

import math
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc.aio import Channel
from opentelemetry.trace import Span

from services.chassis import telemetry
from services.chassis.channel import CHANNEL_OPTIONS, client_span
from services.chassis.concerns import REPLAYED_KEY
from services.chassis.errors import ServiceError
from services.gateway.descriptors import KEY_FIELD, KEY_HEADER, Method

# An answer has passed the sender's limit already: refusing it here would only turn it into another error.
_OPTIONS = list({**dict(CHANNEL_OPTIONS), "grpc.max_receive_message_length": -1}.items())
Metadata = tuple[tuple[str, str], ...]


def call_metadata(request_id: str, token: str = "") -> Metadata:
    """What a call tells of the request that it is for, and with which access token; empty where none is needed."""
    authorization = (("authorization", f"Bearer {token}"),) if token else ()
    return (("x-request-id", request_id), *authorization)


def open_channels(addresses: Mapping[str, str]) -> dict[str, Channel]:
    """A channel for each package, one for all that share an address. They outlive a restart of what is behind."""
    opened: dict[str, Channel] = {}
    for address in addresses.values():
        if address not in opened:
            opened[address] = grpc.aio.insecure_channel(address, options=_OPTIONS)
    return {package: opened[address] for package, address in addresses.items()}


async def close_channels(channels: Iterable[Channel]) -> None:
    for channel in set(channels):
        await channel.close()


class UnaryCall:
    """One method that answers one message. `key_name` is what its callers know the key of a request as."""

    def __init__(self, method: Method, channel: Channel, timeout: float, key_name: str = KEY_HEADER) -> None:
        self._path, self._timeout, self._key_name, self._takes_key = method.path, timeout, key_name, method.takes_key
        self._call: Callable[..., Any] = channel.unary_unary(
            method.path, request_serializer=_serialize, response_deserializer=method.parse_response
        )

    async def __call__(self, request: Message, metadata: Metadata) -> tuple[Message, bool]:
        """The answer, and whether it is that of an earlier request with the same key. Raises ServiceError."""
        try:
            with client_span(self._path) as span:
                running = self._call(request, timeout=self._timeout, metadata=_traced(span, metadata))
                response = await running
                return response, self._takes_key and await _is_replayed(running)
        except ServiceError as error:
            raise _as_sent(error, self._key_name) from None


class StreamCall:
    """One method that streams messages."""

    def __init__(self, method: Method, channel: Channel, timeout: float) -> None:
        self._path, self.timeout = method.path, timeout
        self._call: Callable[..., Any] = channel.unary_stream(
            method.path, request_serializer=_serialize, response_deserializer=method.parse_response
        )

    async def __call__(
        self, request: Message, metadata: Metadata, seconds: float = math.inf
    ) -> AsyncGenerator[Message, None]:
        """The messages, for at most so many seconds; closing the iterator ends the call. Raises ServiceError."""
        with client_span(self._path) as span:
            seconds = min(seconds, self.timeout)
            running = self._call(request, timeout=seconds, metadata=_traced(span, metadata))
            try:
                async for message in running:
                    yield message
            finally:
                running.cancel()


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


async def _is_replayed(running: Any) -> bool:
    metadata: Iterable[Any] = (await running.initial_metadata(), await running.trailing_metadata())
    return any(key == REPLAYED_KEY and value == "true" for part in metadata for key, value in part or ())


def _traced(span: Span, metadata: Metadata) -> Metadata:
    traceparent = telemetry.traceparent(span)
    return (*metadata, ("traceparent", traceparent)) if traceparent else metadata


def _as_sent(error: ServiceError, key_name: str) -> ServiceError:
    """The error with its fields named as its caller has sent them: over REST the key of a request is a header."""
    error.violations = tuple(
        replace(violation, field=key_name) if violation.field == KEY_FIELD else violation
        for violation in error.violations
    )
    if error.message.startswith(f"{KEY_FIELD}: "):
        error.message = key_name + error.message.removeprefix(KEY_FIELD)
    return error
