"""What a step may say beside its call: `retry`, `on_error`, `foreach` and `approval`. How they are read and checked."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from services.chassis.backoff import BackoffStrategy
from services.pipeline.errors import clip
from services.pipeline.names import RULE, is_name
from services.pipeline.references import ROOTS

MAX_RETRIES = 10
MAX_ITEMS = 10_000
"""What one `foreach` may go through."""
MAX_PARALLEL = 100
MAX_ROLE_LENGTH = 50
DEFAULT_EXPIRES_SECONDS = 86_400
MAX_EXPIRES_SECONDS = 2_592_000
ITEM = "item"
"""What templates call an item unless `as` says otherwise."""


Report = Callable[[str, str], None]
"""Takes one fault: its field and its description."""


class OnError(StrEnum):
    """What becomes of the run when a step has failed for good."""

    FAIL = "fail"
    CONTINUE = "continue"


@dataclass(frozen=True)
class Retry:
    """How often a failed step is tried again, instead of what its task says of all failures."""

    max: int
    backoff: BackoffStrategy = BackoffStrategy.EXPONENTIAL_JITTER


@dataclass(frozen=True)
class Foreach:
    """A step that is done once for each of several items."""

    items: Any
    """A list, or a template that becomes one."""
    name: str = ITEM
    """What templates call the item at hand."""
    parallel: int = 1
    """How many are done at one time."""


@dataclass(frozen=True)
class Approval:
    """A step that somebody must approve before it is begun."""

    role: str = ""
    """Who is asked, in the pipeline's own words; empty for anybody who may decide."""
    expires_seconds: int = DEFAULT_EXPIRES_SECONDS
    """How long they have. Then the answer is no."""


def retry(step: Mapping[str, Any]) -> Retry | None:
    """Reads a checked step's `retry`."""
    given = step.get("retry")
    if given is None:
        return None
    return Retry(int(given["max"]), BackoffStrategy(given.get("backoff", BackoffStrategy.EXPONENTIAL_JITTER)))


def foreach(step: Mapping[str, Any]) -> Foreach | None:
    """Reads a checked step's `foreach`."""
    given = step.get("foreach")
    return None if given is None else Foreach(given["items"], given.get("as", ITEM), int(given.get("parallel", 1)))


def approval(step: Mapping[str, Any]) -> Approval | None:
    """Reads a checked step's `approval`."""
    given = step.get("approval")
    if given is None:
        return None
    return Approval(given.get("role", ""), int(given.get("expires_seconds", DEFAULT_EXPIRES_SECONDS)))


def check(step: Mapping[str, Any], path: str, report: Report) -> None:
    """Reports the faults of the four; templates in `foreach.items` are not looked at."""
    for key, check_option in _CHECKS.items():
        if key not in step:
            continue
        if key == "on_error" or isinstance(step[key], Mapping):
            check_option(step[key], f"{path}.{key}", report)
        else:
            report(f"{path}.{key}", f"must be an object with {_names(_KEYS[key])}")


def item_name(step: Mapping[str, Any]) -> str | None:
    """What templates of this step may call the item at hand; None when it has none, or no name that could be used."""
    given = step.get("foreach")
    name = given.get("as", ITEM) if isinstance(given, Mapping) else None
    return name if is_name(name) and name not in ROOTS else None


def _check_retry(given: Mapping[str, Any], path: str, report: Report) -> None:
    _check_keys(given, "retry", path, report)
    if "max" not in given:
        report(f"{path}.max", f"is required: how often the step is tried again, 0 to {MAX_RETRIES}")
    else:
        _check_number(given["max"], f"{path}.max", 0, MAX_RETRIES, report)
    if given.get("backoff", BackoffStrategy.FIXED) not in list(BackoffStrategy):
        report(f"{path}.backoff", f"must be one of {_names(BackoffStrategy)}")


def _check_on_error(given: Any, path: str, report: Report) -> None:
    if given not in list(OnError):
        report(path, f"must be one of {_names(OnError)}")


def _check_foreach(given: Mapping[str, Any], path: str, report: Report) -> None:
    _check_keys(given, "foreach", path, report)
    _check_items(given, f"{path}.items", report)
    name = given.get("as", ITEM)
    if not is_name(name):
        report(f"{path}.as", f"must be a name of {RULE}")
    elif name in ROOTS:
        report(f"{path}.as", f"must not be {name!r}, which is something else in templates")
    _check_number(given.get("parallel", 1), f"{path}.parallel", 1, MAX_PARALLEL, report)


def _check_items(given: Mapping[str, Any], path: str, report: Report) -> None:
    items = given.get("items")
    if "items" not in given:
        report(path, "is required: a list, or a template of one, such as ${params.names}")
    elif isinstance(items, list | tuple):
        if len(items) > MAX_ITEMS:
            report(path, f"has {len(items)} items, at most {MAX_ITEMS}")
    elif not isinstance(items, str) or not items.startswith("${"):
        report(path, "must be a list, or a template of one, such as ${params.names}")


def _check_approval(given: Mapping[str, Any], path: str, report: Report) -> None:
    _check_keys(given, "approval", path, report)
    role = given.get("role", "")
    if not isinstance(role, str) or len(role) > MAX_ROLE_LENGTH:
        report(f"{path}.role", f"must be text of at most {MAX_ROLE_LENGTH} characters")
    expires = given.get("expires_seconds", DEFAULT_EXPIRES_SECONDS)
    _check_number(expires, f"{path}.expires_seconds", 1, MAX_EXPIRES_SECONDS, report)


def _check_keys(given: Mapping[str, Any], option: str, path: str, report: Report) -> None:
    for key in given:
        if key not in _KEYS[option]:
            report(f"{path}.{clip(str(key), 40)}", f"is unknown; known are {_names(_KEYS[option])}")


def _check_number(given: Any, path: str, lowest: int, highest: int, report: Report) -> None:
    # JSON has one kind of number: 3.0 is 3 there.
    whole = isinstance(given, int) or (isinstance(given, float) and given.is_integer())
    if isinstance(given, bool) or not whole or not lowest <= given <= highest:
        report(path, f"must be a whole number, {lowest} to {highest}")


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)


_KEYS = {"retry": ("max", "backoff"), "foreach": ("items", "as", "parallel"), "approval": ("role", "expires_seconds")}
_CHECKS: Mapping[str, Callable[[Any, str, Report], None]] = {
    "retry": _check_retry,
    "on_error": _check_on_error,
    "foreach": _check_foreach,
    "approval": _check_approval,
}
