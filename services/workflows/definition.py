"""Reads a template's definition out of a document (YAML or JSON), and refuses one that could not be worked along."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator

from services.chassis.errors import InvalidArgument, Violation
from services.pipeline.schemas import Schema, SchemaNotUsable
from services.workflows.models.template import (
    DEFAULT_MAX_RETRIES,
    Definition,
    State,
    Transition,
    TransitionKind,
)

_NAME = {"type": "string", "pattern": r"^[a-z][a-z0-9_-]{0,63}\Z"}
_NAME_OR_EMPTY = {"type": "string", "pattern": r"^([a-z][a-z0-9_-]{0,63})?\Z"}
_TEXT = {"type": "string", "maxLength": 2000}
_FIELD = {"type": "string", "minLength": 1, "maxLength": 100}
_SECONDS = {"type": "integer", "minimum": 0, "maximum": 31_536_000}
# A role that runs are for.
_MAX_RUN_ROLE = 50


def _object(required: Iterable[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": dict(properties),
        "additionalProperties": False,
    }


_STATE = _object(
    ["name"],
    {
        "name": _NAME,
        "owner_role": _NAME_OR_EMPTY,
        "phase": _NAME_OR_EMPTY,
        "terminal": {"type": "boolean"},
        "description": _TEXT,
        "handoff": {"type": "array", "items": _FIELD, "uniqueItems": True, "maxItems": 50},
        "result_schema": {"type": ["object", "null"]},
        "deadline_seconds": _SECONDS,
        "ack_required": {"type": "boolean"},
        "ack_seconds": _SECONDS,
        "run_for_role": {"type": "boolean"},
    },
)
_TRANSITION = _object(
    ["from_state", "to_state", "kind"],
    {"from_state": _NAME, "to_state": _NAME, "kind": {"enum": [kind.value for kind in TransitionKind]}},
)
_FORM = Draft202012Validator(
    _object(
        ["name", "version", "initial_state", "states", "transitions"],
        {
            "name": _NAME,
            "version": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
            "description": _TEXT,
            "initial_state": _NAME,
            "states": {"type": "array", "items": _STATE, "minItems": 1, "maxItems": 200},
            "transitions": {"type": "array", "items": _TRANSITION, "maxItems": 2000},
            "max_retries": {"type": "integer", "minimum": 0, "maximum": 1000},
        },
    )
)


def parse(document: Any) -> Definition:
    """The definition in `document`.

    Raises InvalidArgument with one violation per fault: a wrong form; a state named twice; a transition from or
    to no state, to itself, out of a terminal state, or given twice; no terminal state; a state that cannot be
    reached, or from which no terminal state can be reached; one that nobody owns, and that is left forward or has a
    phase; a schema of results that is none, or has no result to check; what somebody is to accept, or to do as a run,
    where nobody is.
    """
    _refuse(
        Violation(_path(error.absolute_path), error.message)
        for error in sorted(_FORM.iter_errors(document), key=lambda error: list(map(str, error.absolute_path)))
    )
    definition = from_document(document)
    _refuse(_faults_of_names(definition))
    _refuse(_faults_of_paths(definition))
    _refuse(_faults_of_states(definition))
    return definition


def from_document(document: Mapping[str, Any]) -> Definition:
    """The definition in a document that was checked before, such as a stored one."""
    return Definition(
        name=document["name"],
        version=document["version"],
        description=document.get("description", ""),
        initial_state=document["initial_state"],
        states=tuple(State(**state | {"handoff": tuple(state.get("handoff", ()))}) for state in document["states"]),
        transitions=tuple(
            Transition(edge["from_state"], edge["to_state"], TransitionKind(edge["kind"]))
            for edge in document["transitions"]
        ),
        max_retries=document.get("max_retries", DEFAULT_MAX_RETRIES),
    )


def _refuse(faults: Iterable[Violation]) -> None:
    found = list(faults)
    if found:
        raise InvalidArgument.of(found)


def _path(parts: Iterable[str | int]) -> str:
    """`states[2].name`; `template` for the document itself."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path.lstrip(".") or "template"


def _faults_of_names(definition: Definition) -> Iterator[Violation]:
    """Whether everything that is named exists, and once."""
    states: dict[str, State] = {}
    for index, state in enumerate(definition.states):
        if state.name in states:
            yield Violation(f"states[{index}].name", f"{state.name!r} is the name of an earlier state")
        states.setdefault(state.name, state)
    if definition.initial_state not in states:
        yield Violation("initial_state", f"{definition.initial_state!r} is not the name of a state")
    seen = set()
    for index, edge in enumerate(definition.transitions):
        yield from _faults_of_transition(f"transitions[{index}]", edge, states)
        if (edge.from_state, edge.to_state) in seen:
            yield Violation(f"transitions[{index}]", f"{edge.from_state!r} to {edge.to_state!r} is given twice")
        seen.add((edge.from_state, edge.to_state))


def _faults_of_transition(path: str, edge: Transition, states: Mapping[str, State]) -> Iterator[Violation]:
    for end, name in (("from_state", edge.from_state), ("to_state", edge.to_state)):
        if name not in states:
            yield Violation(f"{path}.{end}", f"{name!r} is not the name of a state")
    if edge.from_state == edge.to_state:
        yield Violation(path, f"leads from {edge.from_state!r} to itself")
    if edge.from_state in states and states[edge.from_state].terminal:
        yield Violation(f"{path}.from_state", f"{edge.from_state!r} is terminal: nothing may follow it")


def _faults_of_states(definition: Definition) -> Iterator[Violation]:
    """Whether somebody owns each state with something to do, and what is asked of results can be asked."""
    for index, state in enumerate(definition.states):
        path = f"states[{index}]"
        if not state.owner_role and definition.moves(state.name, TransitionKind.FORWARD, TransitionKind.RETRY):
            yield Violation(f"{path}.owner_role", f"is missing: who is to lead on from {state.name!r}?")
        if state.phase and not state.owner_role:
            yield Violation(f"{path}.owner_role", f"is missing: somebody must produce the phase {state.phase!r}")
        if state.terminal and state.deadline_seconds:
            yield Violation(f"{path}.deadline_seconds", f"does nothing: {state.name!r} is never left")
        if state.result_schema is not None and not state.phase:
            yield Violation(f"{path}.result_schema", f"does nothing: {state.name!r} has no phase, and so no result")
        if state.result_schema is not None and (fault := _schema_fault(state.result_schema)):
            yield Violation(f"{path}.result_schema", fault)
        yield from _faults_of_taking(definition, state, path)


def _faults_of_taking(definition: Definition, state: State, path: str) -> Iterator[Violation]:
    """Whether somebody is there to accept the work, or to find it as a run."""
    if state.ack_required and state.run_for_role:
        yield Violation(f"{path}.ack_required", "does nothing beside run_for_role: who leases the run has accepted it")
    elif state.ack_required and not definition.next_role(state.name):
        yield Violation(f"{path}.ack_required", f"does nothing: nobody goes on in {state.name!r}")
    if state.ack_seconds and not state.ack_required:
        yield Violation(f"{path}.ack_seconds", "does nothing without ack_required")
    if state.run_for_role and (state.terminal or not state.owner_role):
        yield Violation(f"{path}.run_for_role", f"does nothing: nobody works in {state.name!r}")
    if state.run_for_role and len(state.owner_role) > _MAX_RUN_ROLE:
        yield Violation(f"{path}.owner_role", f"is longer than {_MAX_RUN_ROLE} characters, as long as a run's role is")


def _schema_fault(schema: Mapping[str, Any]) -> str:
    try:
        Schema(schema)
    except SchemaNotUsable as why:
        return str(why)
    return ""


def _faults_of_paths(definition: Definition) -> Iterator[Violation]:
    """Whether work can get everywhere, and from everywhere to an end."""
    terminal = {state.name for state in definition.states if state.terminal}
    if not terminal:
        yield Violation("states", "none is terminal: work could never be done")
        return
    edges = [(edge.from_state, edge.to_state) for edge in definition.transitions]
    begun = _reached({definition.initial_state}, edges)
    ending = _reached(terminal, [(to, origin) for origin, to in edges])
    for index, state in enumerate(definition.states):
        if state.name not in begun:
            yield Violation(
                f"states[{index}]", f"{state.name!r} cannot be reached from the initial {definition.initial_state!r}"
            )
        if state.name not in ending:
            yield Violation(f"states[{index}]", f"no terminal state can be reached from {state.name!r}")


def _reached(start: set[str], edges: Iterable[tuple[str, str]]) -> set[str]:
    """The names that can be reached from `start`, itself included."""
    following: dict[str, list[str]] = {}
    for origin, to in edges:
        following.setdefault(origin, []).append(to)
    reached, waiting = set(start), list(start)
    while waiting:
        for name in following.get(waiting.pop(), ()):
            if name not in reached:
                reached.add(name)
                waiting.append(name)
    return reached
