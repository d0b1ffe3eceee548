"""The rule of the chat, and the names of pieces of work."""

from datetime import UTC, datetime
from itertools import product

import pytest

from services.sessions.models.chat import ChatParty, NewMessage
from services.sessions.models.prompt import slug_of

NOON = datetime(2030, 1, 2, 12, 34, 56, tzinfo=UTC)


@pytest.mark.parametrize(("sender", "receiver", "agent_id"), list(product(ChatParty, ChatParty, (None, "7"))))
def test_the_sides_differ_and_an_agent_is_named_exactly_when_it_is_one(
    sender: ChatParty, receiver: ChatParty, agent_id: str | None
) -> None:
    message = NewMessage(message="hello", sender_type=sender, receiver_type=receiver, agent_id=agent_id)
    faults = {fault.field for fault in message.faults()}
    assert ("receiver_type" in faults) == (sender is receiver)
    assert ("agent_id" in faults) == ((ChatParty.AGENT in (sender, receiver)) != (agent_id is not None))


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Fix the login page!", "fix-the-login-page"),
        ("  __Fix__  ", "fix"),
        ("Почини вход", "почини-вход"),
        ("...", "prompt"),
        ("x" * 70, "x" * 50),
    ],
)
def test_a_slug_is_made_of_the_text_and_the_time(text: str, slug: str) -> None:
    assert slug_of(text, NOON) == f"{slug}-20300102-123456"


def test_a_slug_stays_short_where_small_letters_are_longer() -> None:
    assert len(slug_of("\u0130" * 50, NOON)) <= 66
