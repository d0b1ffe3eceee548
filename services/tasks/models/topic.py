"""Topics of events, and the patterns of topics that tasks wait for.

A topic is segments joined by dots: `order.created`. In a pattern `*` stands for one segment, wherever it is, and `**`
at the end for one or more. What Baton itself publishes has topics of its own (RESERVED), which a wildcard in the first
place does not stand for: so nobody who waits for everything waits for the ends of his own runs.
"""

import re

MAX_LENGTH = 100
RESERVED = ("agent", "approval", "budget", "run", "session", "task", "workflow")
"""What Baton's own topics begin with: nobody else may publish them."""

_TOLD_BY = {"sessions": ("agent", "budget", "session"), "workflows": ("workflow",)}
"""Which of Baton's own topics other contexts tell of, by their first segment."""
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_ONE, _MORE = "*", "**"
_RULE = "segments of letters, digits, _ and - with dots between them, such as order.created"


def topic_fault(topic: str) -> str:
    """What is wrong with a topic that somebody wants to publish; empty when nothing is."""
    if fault := _length_fault(topic):
        return fault
    if not all(map(_SEGMENT.fullmatch, topic.split("."))):
        return f"{topic!r} is no topic: use {_RULE}"
    if is_reserved(topic):
        return f"topics that begin with {topic.split('.')[0]!r} are Baton's own: choose another first segment"
    return ""


def told_topic_fault(source: str, topic: str) -> str:
    """What is wrong with a topic that another context tells of; empty when nothing is."""
    if fault := _length_fault(topic):
        return fault
    first, *more = topic.split(".")
    if first not in _TOLD_BY.get(source, ()) or not more or not all(map(_SEGMENT.fullmatch, more)):
        return f"is about {topic!r}, of which {source!r} tells nothing"
    return ""


def pattern_fault(pattern: str) -> str:
    """What is wrong with a pattern; empty when nothing is."""
    if fault := _length_fault(pattern):
        return fault
    *before, last = pattern.split(".")
    if _MORE in before:
        return f"{pattern!r} has ** before its end: there it stands for one segment or more, elsewhere use *"
    if all(part == _ONE or _SEGMENT.fullmatch(part) for part in before) and (
        last in (_ONE, _MORE) or _SEGMENT.fullmatch(last)
    ):
        return ""
    return f"{pattern!r} is no topic, or pattern of topics: use {_RULE}, order.* or order.**"


def is_reserved(topic: str) -> bool:
    """Whether a topic is one of Baton's own."""
    return topic.split(".")[0] in RESERVED


def is_pattern(text: str) -> bool:
    """Whether it may match more than one topic."""
    return _ONE in text


def matches(pattern: str, topic: str) -> bool:
    """Whether a topic is one of those that a pattern stands for."""
    wanted, given = pattern.split("."), topic.split(".")
    if wanted[0] in (_ONE, _MORE) and is_reserved(topic):
        return False
    if wanted[-1] == _MORE:
        wanted.pop()
        if len(given) <= len(wanted):
            return False
        del given[len(wanted) :]
    return len(wanted) == len(given) and all(want in (_ONE, have) for want, have in zip(wanted, given, strict=True))


def key_of(pattern: str) -> str:
    """What a pattern is found by: itself, or what stands before its first wildcard, and `*`."""
    first, *_ = pattern.split(_ONE)
    return pattern if first == pattern else f"{first}{_ONE}"


def keys_of(topic: str) -> list[str]:
    """The keys of all patterns that may match a topic."""
    segments = topic.split(".")
    starts = [".".join([*segments[:count], _ONE]) for count in range(len(segments))]
    return [topic, *(starts[1:] if is_reserved(topic) else starts)]


def as_expression(pattern: str) -> str:
    """The pattern as a regular expression, of the kind that both engines know."""
    *before, last = pattern.split(".")
    parts = ["[^.]+" if part == _ONE else part for part in before]
    whole = "[.]".join([*parts, ".+" if last == _MORE else "[^.]+" if last == _ONE else last])
    own = f"(?!({'|'.join(RESERVED)})([.]|$))" if pattern.startswith(_ONE) else ""
    return f"^{own}{whole}$"


def example_of(pattern: str) -> str:
    """A topic that the pattern matches."""
    return pattern.replace(_MORE, _ONE).replace(_ONE, "any")


def _length_fault(text: str) -> str:
    if not text:
        return "is required: a topic, such as order.created"
    return f"has {len(text)} characters, at most {MAX_LENGTH}" if len(text) > MAX_LENGTH else ""
