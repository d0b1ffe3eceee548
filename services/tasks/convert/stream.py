"""Messages of a stream."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson

from services.chassis.errors import InvalidArgument, Violation
from services.chassis.structs import from_struct, to_struct
from services.pipeline.definition import MAX_DEPTH, is_too_deep
from services.tasks.models.event import MAX_PAYLOAD_BYTES, Incoming
from services.tasks.operations.event import checked_size

FIELDS = (b"event_id", b"topic", b"payload", b"source_agent_id", b"published_at", b"published_by")
"""What a message of the earlier scheduler has. Only the first three say anything here: the rest, anybody may claim."""
# JSON that was written with blanks and escapes is longer than it is counted.
_MAX_TEXT = 8 * MAX_PAYLOAD_BYTES


def incoming(stream: str, message_id: str, fields: Mapping[bytes, bytes]) -> Incoming:
    """The event that a message is to become. Raises InvalidArgument when it can be none."""
    topic, payload = _topic(fields), _payload(fields)
    size = checked_size(topic, payload)
    return Incoming(source_key(stream, message_id, fields), topic, payload, size)


def source_key(stream: str, message_id: str, fields: Mapping[bytes, bytes]) -> str:
    """What a message is known by: its `event_id` if that is a UUID, else its place in its stream."""
    text = fields.get(b"event_id", b"")
    try:
        return str(UUID(text.decode("ascii")))
    except ValueError:
        return f"{stream}/{message_id}"


def _topic(fields: Mapping[bytes, bytes]) -> str:
    try:
        return fields.get(b"topic", b"").decode()
    except UnicodeDecodeError:
        raise _fault("topic", "is not UTF-8") from None


def _payload(fields: Mapping[bytes, bytes]) -> dict[str, Any]:
    text = fields.get(b"payload")
    if text is None:
        raise _fault("payload", 'is missing: a JSON object, such as {"id": 1}')
    if len(text) > _MAX_TEXT:
        raise _fault("payload", f"has {len(text)} bytes, at most {MAX_PAYLOAD_BYTES} are allowed")
    try:
        payload = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _fault("payload", f"is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise _fault("payload", 'is not a JSON object, such as {"id": 1}')
    if is_too_deep(payload):
        raise _fault("payload", f"is nested deeper than {MAX_DEPTH} levels")
    # Numbers become what they become in a request.
    return from_struct(to_struct(payload))


def _fault(field: str, description: str) -> InvalidArgument:
    return InvalidArgument.of([Violation(field, description)])
