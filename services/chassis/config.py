"""Settings: a frozen dataclass whose fields say which environment variable fills them."""

import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

_T = TypeVar("_T")
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


class ConfigurationError(Exception):
    """The environment does not give a process what it needs; the message names the variable."""


def setting(variable: str, *, default: Any = MISSING, help: str) -> Any:
    """Declares a field that the environment variable `variable` fills. Without a default it must be set."""
    metadata = {"variable": variable, "help": help}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def load(cls: type[_T], environ: Mapping[str, str] = os.environ) -> _T:
    """Fills the dataclass `cls` from the environment.

    Types: str, int, float, bool (`1 true yes on` / `0 false no off`), Path, and each of them or None. An empty
    variable counts as unset. Raises ConfigurationError.
    """
    hints = get_type_hints(cls)
    values = {}
    for item in fields(cls):  # type: ignore[arg-type]
        text = environ.get(item.metadata["variable"], "")
        if text:
            values[item.name] = _convert(item, hints[item.name], text)
        elif item.default is MISSING:
            raise ConfigurationError(f"{item.metadata['variable']} is not set: {item.metadata['help']}")
    return cls(**values)


def _convert(item: Field[Any], hint: Any, text: str) -> Any:
    kind = (get_args(hint) or (hint,))[0]
    try:
        return _flag(text) if kind is bool else kind(text)
    except ValueError:
        kind_name = "a path" if kind is Path else f"of type {kind.__name__}"
        raise ConfigurationError(f"{item.metadata['variable']} is {text!r}, which is not {kind_name}") from None


def _flag(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(text)
