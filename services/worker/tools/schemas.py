"""Checks what a tool takes, and what it answers, against its JSON Schemas."""

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from mcp.types import Tool

from services.pipeline.errors import clip
from services.pipeline.schemas import Schema, SchemaNotUsable, path
from services.worker.failures import InputNotValid, InternalFault, ToolFailed

_log = logging.getLogger(__name__)


class InputSchema:
    """The schema of what one tool takes. One that is itself faulty checks nothing: the tool will."""

    def __init__(self, address: str, schema: Mapping[str, Any]) -> None:
        self._schema = _Checked(address, schema)

    def check(self, arguments: Mapping[str, Any], clean: Callable[[str], str] = str) -> None:
        """Raises InputNotValid, which names the field at fault; its message has gone through `clean`."""
        if fault := self._schema.fault(arguments, "with", clean):
            raise InputNotValid(fault)


class OutputSchema:
    """The schema of what one built-in tool answers."""

    def __init__(self, address: str, schema: Mapping[str, Any]) -> None:
        self._address = address
        self._schema = _Checked(address, schema)

    def check(self, output: Any) -> None:
        """Raises InternalFault: the tool is ours."""
        if fault := self._schema.fault(output, "output", str):
            _log.error("tool_output_not_valid", extra={"tool": self._address, "fault": fault.partition(":")[0]})
            raise InternalFault(f"{self._address} answered something else than it should")


class ToolSchemas:
    """The schemas of one tool of a server. One that is itself faulty checks nothing: the server will."""

    def __init__(self, address: str, tool: Tool) -> None:
        self._address = address
        self._input = InputSchema(address, tool.input_schema)
        self._output = None if tool.output_schema is None else _Checked(address, tool.output_schema)

    def check_input(self, arguments: Mapping[str, Any], clean: Callable[[str], str] = str) -> None:
        """As `InputSchema.check`."""
        self._input.check(arguments, clean)

    def check_output(self, structured: Any, clean: Callable[[str], str] = str) -> None:
        """Raises ToolFailed, which names the field at fault. `structured` is None when there was no such output."""
        if self._output is None:
            return
        if structured is None:
            raise ToolFailed(f"the output of {self._address} has no structured content, which its schema promises")
        if fault := self._output.fault(structured, "output", clean):
            raise ToolFailed(f"the output of {self._address} does not fit its schema: {fault}")


class _Checked:
    """A schema that is read when it is first needed, for most tools of a server never are."""

    def __init__(self, address: str, schema: Mapping[str, Any]) -> None:
        self._address = address
        self._schema = schema

    def fault(self, value: Any, field: str, clean: Callable[[str], str]) -> str:
        """Where the worst fault is and what, gone through `clean`; empty when there is none."""
        if self._usable is None:
            return ""
        try:
            fault = self._usable.worst_fault(value)
        except SchemaNotUsable as why:
            self._log(why)
            return ""
        # Cut after it was cleaned: nobody would know a part of a secret.
        return "" if fault is None else f"{clean(path(fault, field))}: {clip(clean(fault.message), 500)}"

    @cached_property
    def _usable(self) -> Schema | None:
        try:
            return Schema(self._schema)
        except SchemaNotUsable as why:
            self._log(why)
            return None

    def _log(self, why: SchemaNotUsable) -> None:
        _log.warning("tool_schema_not_usable", extra={"tool": self._address, "error": str(why)})
