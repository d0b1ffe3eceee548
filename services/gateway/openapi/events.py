"""Server-sent events, whose fields are text: what that text holds is JSON."""

from typing import Any

import orjson

from services.gateway.line_stream import MEDIA_TYPE as LINES_MEDIA_TYPE
from services.gateway.openapi.rules import Schema

DESCRIPTION = f"""\
Server-sent events. A failure midway is a last event named `problem`, whose data is a problem document. With \
`Accept: {LINES_MEDIA_TYPE}` each message is a line of JSON instead, and a failure midway breaks the connection."""


def event(message: Schema) -> Schema:
    """One event, in whose data is `message`."""
    held = {"anyOf": [message, {"$ref": "#/components/schemas/Problem"}]}
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": held}
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "What to come back with as `Last-Event-ID`."},
            "event": {"type": "string", "enum": ["message", "problem"]},
            "data": data,
            "retry": {"type": "integer", "description": "After how many milliseconds to come back."},
        },
        "required": ["data"],
    }


def example(message: Any) -> Schema:
    """An event with this in its data."""
    return {"id": "17", "event": "message", "data": orjson.dumps(message).decode()}
