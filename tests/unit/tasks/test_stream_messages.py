"""What a message of a stream becomes."""

from uuid import UUID

import orjson
import pytest

from services.chassis.errors import InvalidArgument
from services.tasks.convert.stream import incoming, source_key
from services.tasks.models.event import MAX_PAYLOAD_BYTES

EVENT_ID = UUID("0199aaaa-0000-7000-8000-00000000000a")


def fields(**changes: bytes) -> dict[bytes, bytes]:
    given = {"topic": b"order.created", "payload": b'{"total": 3.0}'} | changes
    return {name.encode(): value for name, value in given.items()}


def test_a_message_has_a_topic_and_a_payload() -> None:
    found = incoming("events", "5-0", fields())
    assert (found.topic, found.payload, found.payload_bytes) == ("order.created", {"total": 3}, len(b'{"total":3}'))


def test_who_published_it_and_when_is_not_taken_from_the_message() -> None:
    claimed = fields(source_agent_id=b"an agent", published_by=b"another", published_at=b"2001-01-01T00:00:00Z")
    assert incoming("events", "5-0", claimed) == incoming("events", "5-0", fields())


@pytest.mark.parametrize("text", [str(EVENT_ID), str(EVENT_ID).upper(), EVENT_ID.hex])
def test_a_message_is_known_by_its_event_id(text: str) -> None:
    assert source_key("events", "5-0", fields(event_id=text.encode())) == str(EVENT_ID)


@pytest.mark.parametrize("text", [b"", b"17", b"\xff", "\N{ARABIC-INDIC DIGIT ONE}".encode() * 32])
def test_without_a_uuid_it_is_known_by_its_place(text: bytes) -> None:
    assert source_key("events", "5-0", fields(event_id=text)) == "events/5-0"
    assert source_key("events", "5-0", fields()) == "events/5-0"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "payload: is missing"),
        ({b"payload": b"{}"}, "topic: is required: a topic, such as order.created"),
        (fields(topic=b"no topic"), "topic: 'no topic' is no topic: use "),
        (fields(topic=b"run.succeeded"), "topic: topics that begin with 'run' are Baton's own"),
        (fields(topic=b"\xff"), "topic: is not UTF-8"),
        (fields(payload=b"{"), "payload: is not JSON: "),
        (fields(payload=b"[1]"), "payload: is not a JSON object"),
        (fields(payload=b'{"a": NaN}'), "payload: is not JSON: "),
        (fields(payload=b'{"a": "\\ud800"}'), "payload: is not JSON: "),
        (fields(payload=b'{"a":' * 900 + b"1" + b"}" * 900), "payload: is nested deeper than "),
        (fields(payload=b" " * 9 * MAX_PAYLOAD_BYTES + b"{}"), "payload: has "),
        (fields(payload=orjson.dumps({"a": "x" * MAX_PAYLOAD_BYTES})), "payload: is "),
    ],
)
def test_what_can_be_no_event_is_refused_with_the_reason(given: dict[bytes, bytes], reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        incoming("events", "5-0", given)
    assert refused.value.message.startswith(reason)
