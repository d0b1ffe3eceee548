"""The gateway is generic: it learns every noun from descriptors."""

import re
from pathlib import Path

import services.gateway

SOURCES = sorted(Path(services.gateway.__file__).parent.rglob("*.py"))
# In MCP a tool is what a client calls, whatever it does.
PROTOCOL_WORDS = re.compile(r"(?<![a-z])tools?(?![a-z])", re.IGNORECASE)
# The nouns of the contexts, as they would be written in an identifier or a path.
NOUNS = ("agent", "run", "workflow", "session", "approval", "occurrence", "template_name", "tool", "worker", "prompt")
WORD = re.compile(rf"(?<![a-z])({'|'.join(NOUNS)})s?(_id)?(?![a-z]|-src)", re.IGNORECASE)
FOREIGN = re.compile(r"^\s*(?:from|import) (?:sqlalchemy|psycopg|services\.(?!chassis|gateway)|baton\.(?!api))", re.M)


def test_no_source_names_a_context_s_noun() -> None:
    found = [f"{path.name}: {match[0]}" for path in SOURCES for match in WORD.finditer(text_of(path))]
    assert found == []


def text_of(path: Path) -> str:
    """A source without what other libraries and protocols call by the same names."""
    # asyncio and uvloop have a `run` of their own.
    text = path.read_text().replace("uvloop.run(run(", "").replace("async def run(", "")
    if path.parent.name != "mcp":
        return text
    return PROTOCOL_WORDS.sub("", text).replace("manager.run()", "")


def test_no_source_imports_another_context_or_a_database() -> None:
    assert [path.name for path in SOURCES if FOREIGN.search(path.read_text())] == []
