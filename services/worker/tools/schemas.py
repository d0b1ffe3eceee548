"""Checks what a tool takes, and what a built-in one answers, against its JSON Schema."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from jsonschema import exceptions
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry

from services.pipeline.errors import clip
from services.pipeline.templates import member
from services.worker.failures import InputNotValid, InternalFault

_log = logging.getLogger(__name__)


class InputSchema:
    """The schema of one tool's input. One that is itself faulty checks nothing: the server will."""

    def __init__(self, address: str, schema: Mapping[str, Any]) -> None:
        self._schema = _Schema(address, schema)

    def check(self, arguments: Mapping[str, Any], clean: Callable[[str], str] = str) -> None:
        """Raises InputNotValid, which names the field at fault; its message has gone through `clean`."""
        fault = self._schema.fault(arguments, "with", clean)
        if fault is not None:
            raise InputNotValid(fault)


class OutputSchema:
    """The schema of what one built-in tool answers."""

    def __init__(self, address: str, schema: Mapping[str, Any]) -> None:
        self._address = address
        self._schema = _Schema(address, schema)

    def check(self, output: Any) -> None:
        """Raises InternalFault: the tool is ours."""
        fault = self._schema.fault(output, "output", str)
        if fault is not None:
            _log.error("tool_output_not_valid", extra={"tool": self._address, "fault": fault.partition(":")[0]})
            raise InternalFault(f"{self._address} answered something else than it should")


class _Schema:
    def __init__(self, address: str, schema: Mapping[str, Any]) -> None:
        self._address = address
        self._validator = _validator(address, dict(schema))

    def fault(self, value: Any, root: str, clean: Callable[[str], str]) -> str | None:
        """The worst fault of a value, with its path below `root`; None when it has none."""
        if self._validator is None:
            return None
        try:
            fault = exceptions.best_match(self._validator.iter_errors(value))
        except Exception:  # it refers to what is not there, or to itself without end
            _log.warning("tool_schema_not_usable", extra={"tool": self._address})
            self._validator = None
            return None
        return None if fault is None else f"{_path(fault, root)}: {clip(clean(fault.message), 500)}"


def _validator(address: str, schema: dict[str, Any]) -> Validator | None:
    try:
        cls = validator_for(schema)
        cls.check_schema(schema)
    except Exception:  # a faulty schema, or one too deep to be checked
        _log.warning("tool_schema_not_usable", extra={"tool": address})
        return None
    # An empty registry: a schema must not make the worker fetch what it refers to.
    validator: Validator = cls(schema, registry=Registry())
    return validator


def _path(fault: exceptions.ValidationError, root: str) -> str:
    path = root
    for part in fault.absolute_path:
        path = member(path, part) if isinstance(part, str) else f"{path}[{part}]"
    return path
