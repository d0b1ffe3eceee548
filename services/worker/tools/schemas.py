"""Checks a tool's input and output against the JSON Schemas that the tool's server gave."""

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from mcp.types import Tool

from services.pipeline.errors import clip
from services.pipeline.schemas import Schema, SchemaNotUsable, path
from services.worker.failures import InputNotValid, ToolFailed

_log = logging.getLogger(__name__)


class ToolSchemas:
    """The schemas of one tool. One that is itself faulty checks nothing: the server will."""

    def __init__(self, address: str, tool: Tool) -> None:
        self._address = address
        self._input = _Checked(address, tool.input_schema)
        self._output = None if tool.output_schema is None else _Checked(address, tool.output_schema)

    def check_input(self, arguments: Mapping[str, Any]) -> None:
        """Raises InputNotValid, which names the field at fault."""
        if fault := self._input.fault(arguments, "with"):
            raise InputNotValid(fault)

    def check_output(self, structured: Any) -> None:
        """Raises ToolFailed, which names the field at fault. `structured` is None when there was no such output."""
        if self._output is None:
            return
        if structured is None:
            raise ToolFailed(f"the output of {self._address} has no structured content, which its schema promises")
        if fault := self._output.fault(structured, "output"):
            raise ToolFailed(f"the output of {self._address} does not fit its schema: {fault}")


class _Checked:
    """A schema that is read when it is first needed, for most tools of a server never are."""

    def __init__(self, address: str, schema: Mapping[str, Any]) -> None:
        self._address = address
        self._schema = schema

    def fault(self, value: Any, field: str) -> str:
        """Where the worst fault is and what; empty when there is none."""
        if self._usable is None:
            return ""
        try:
            fault = self._usable.worst_fault(value)
        except SchemaNotUsable as why:
            self._log(why)
            return ""
        return "" if fault is None else f"{path(fault, field)}: {clip(fault.message, 500)}"

    @cached_property
    def _usable(self) -> Schema | None:
        try:
            return Schema(self._schema)
        except SchemaNotUsable as why:
            self._log(why)
            return None

    def _log(self, why: SchemaNotUsable) -> None:
        _log.warning("tool_schema_not_usable", extra={"tool": self._address, "error": str(why)})
