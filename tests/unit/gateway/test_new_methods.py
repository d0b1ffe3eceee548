"""A method that is new in a contract is there in every form, and the gateway has not been touched for it."""

import json

import httpx2

from tests.unit.gateway.garden import Garden
from tests.unit.gateway.mcp_client import open_client
from tests.unit.gateway.test_domain_words import SOURCES

KERMIT = {"name": "kermit", "jumps": 0}
LINES = {"Accept": "application/x-ndjson"}


async def test_what_a_contract_declares_is_there_in_every_form(garden: Garden, client: httpx2.AsyncClient) -> None:
    # REST
    adopted = await client.post("/frogs", json={"name": "kermit"})
    assert (adopted.status_code, adopted.json(), adopted.headers["location"]) == (201, KERMIT, "/frogs/kermit")
    assert (await client.get("/frogs/kermit")).json() == KERMIT
    # MCP
    async with open_client(garden) as mcp:
        tools = {tool.name: tool for tool in (await mcp.list_tools()).tools}
        assert tools["look_at_frog"].description == "Reads one frog.\n\nScope: `frogs:read`."
        assert (await mcp.call_tool("look_at_frog", {"name": "kermit"})).structured_content == KERMIT
    # CSV
    table = await client.get("/frogs.csv")
    assert (table.text, table.headers["content-type"]) == ("name,jumps\r\nkermit,0\r\n", "text/csv; charset=utf-8")
    assert table.headers["content-disposition"] == 'attachment; filename="frogs.csv"'
    # NDJSON, of what is streamed as bytes and of what is streamed as messages
    assert (await client.get("/frogs.ndjson")).text == '{"name":"kermit"}\n'
    told = [{"number": 0, "frog": None}, {"number": 1, "frog": KERMIT}]
    lines = await client.get("/frogs:watch", headers=LINES)
    assert [json.loads(line) for line in lines.text.splitlines()] == told
    # SSE
    events = (await client.get("/frogs:watch", headers={"Last-Event-ID": "0"})).text
    assert [line.removeprefix("id: ") for line in events.splitlines() if line.startswith("id: ")] == ["0", "1"]
    assert [json.loads(line[5:]) for line in events.splitlines() if line.startswith("data:")] == told
    # OpenAPI
    paths = (await client.get("/openapi.json", headers={"Authorization": ""})).json()["paths"]
    contents = {
        path: {kind for answer in one["responses"].values() if "content" in answer for kind in answer["content"]}
        for path in paths if path.startswith("/frogs") for one in paths[path].values()
    }  # fmt: skip
    assert contents == {
        "/frogs": {"application/json"},
        "/frogs/{name}": {"application/json"},
        "/frogs.csv": {"text/csv"},
        "/frogs.ndjson": {"application/x-ndjson"},
        "/frogs:watch": {"text/event-stream", "application/x-ndjson"},
    }
    assert paths["/frogs/{name}"]["get"]["parameters"][0]["description"] == "Which frog."


def test_the_gateway_has_no_word_of_it() -> None:
    assert [path.name for path in SOURCES if "frog" in path.read_text().lower()] == []
