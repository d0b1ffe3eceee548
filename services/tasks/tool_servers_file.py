"""The operator's file of tool servers: read when the service starts, and made true in the table."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from baton.tasks.v1 import tool_pb2, tool_service_pb2
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from services.chassis import validation
from services.chassis.config import ConfigurationError
from services.chassis.database import Database
from services.chassis.errors import InvalidArgument
from services.tasks.convert.tool_server import new_tool_server
from services.tasks.models.tool_server import NewToolServer, ToolTransport
from services.tasks.operations.tool_server_faults import server_faults
from services.tasks.operations.tool_server_file import sync_tool_servers

_A_DAY = 86_400.0
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_FORM = Draft202012Validator(
    {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["name", "transport"],
            "properties": {
                "name": _TEXT,
                "transport": {"enum": [transport.value for transport in ToolTransport]},
                "command": _TEXTS,
                "env": {"type": "object", "additionalProperties": _TEXT},
                "url": _TEXT,
                "timeout_seconds": {"type": "integer", "minimum": 1, "maximum": 3600},
                "description": _TEXT,
                "enabled": {"type": "boolean"},
                "scopes": _TEXTS,
            },
            "additionalProperties": False,
        },
    }
)
_log = logging.getLogger(__name__)


class ToolServersFile:
    """The servers that a file lists."""

    def __init__(self, path: Path, database: Database) -> None:
        """Reads the file. Raises ConfigurationError, or OSError when it cannot be read."""
        self._servers = read(path)
        self._database = database
        self.synced = False
        """Whether the table says what the file said."""

    async def step(self) -> float:
        """Makes the table say what the file said; a step for `loops.forever`."""
        changed = await self._database.transact(
            lambda connection, clock: sync_tool_servers(connection, self._servers, clock)
        )
        if changed:
            _log.info("tool_servers_synced", extra={"servers": changed})
        self.synced = True
        return _A_DAY


def read(path: Path) -> list[NewToolServer]:
    """The servers in a file (YAML or JSON): a list of what `POST /tool-servers` takes.

    Raises ConfigurationError, which tells every fault and no value of `env`.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigurationError(f"{path} is neither YAML nor JSON") from None
    faults = [_worded(fault) for fault in _FORM.iter_errors(document)]
    servers = [] if faults else [_server(entry) for entry in document]
    faults += _faults(servers)
    if faults:
        raise ConfigurationError(f"{path}: {'; '.join(faults)}")
    return [new_tool_server(server) for server in servers]


def _worded(fault: ValidationError) -> str:
    # A wrong value may be a secret, so it is not repeated.
    kind = f"must be of type {fault.validator_value}" if fault.validator == "type" else fault.message
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault.absolute_path)
    return f"{where or 'the file'}: {kind}"


def _server(entry: dict[str, Any]) -> tool_service_pb2.CreateToolServerRequest:
    transport = tool_pb2.ToolTransport.Value(f"TOOL_TRANSPORT_{entry['transport'].upper()}")
    return tool_service_pb2.CreateToolServerRequest(**entry | {"transport": transport})


def _faults(servers: Sequence[tool_service_pb2.CreateToolServerRequest]) -> Iterator[str]:
    names: set[str] = set()
    for index, server in enumerate(servers):
        try:
            validation.check(server)
            violations = server_faults(new_tool_server(server))
        except InvalidArgument as error:
            violations = list(error.violations)
        yield from (f"[{index}].{violation.field}: {violation.description}" for violation in violations)
        if server.name in names:
            yield f"[{index}].name: {server.name!r} is already in the list"
        names.add(server.name)
