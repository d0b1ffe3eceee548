"""Checks a tool's input against the JSON Schema that the tool's server gave."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from jsonschema import exceptions
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry

from services.pipeline.errors import clip
from services.pipeline.templates import member
from services.worker.failures import InputNotValid

_log = logging.getLogger(__name__)


class InputSchema:
    """The schema of one tool's input. One that is itself faulty checks nothing: the server will."""

    def __init__(self, address: str, schema: dict[str, Any]) -> None:
        self._address = address
        self._validator = _validator(address, schema)

    def check(self, arguments: Mapping[str, Any], clean: Callable[[str], str] = str) -> None:
        """Raises InputNotValid, which names the field at fault; its message has gone through `clean`."""
        if self._validator is None:
            return
        try:
            fault = exceptions.best_match(self._validator.iter_errors(arguments))
        except Exception:  # it refers to what is not there, or to itself without end
            _log.warning("tool_schema_not_usable", extra={"tool": self._address})
            self._validator = None
            return
        if fault is not None:
            raise InputNotValid(f"{_path(fault)}: {clip(clean(fault.message), 500)}")


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


def _path(fault: exceptions.ValidationError) -> str:
    path = "with"
    for part in fault.absolute_path:
        path = member(path, part) if isinstance(part, str) else f"{path}[{part}]"
    return path
