"""Templates, as messages."""

from baton.workflows.v1 import template_pb2, template_service_pb2

from services.chassis.structs import to_struct
from services.chassis.timestamps import to_timestamp
from services.workflows.models.template import State, Template, Transition


def version(request: template_service_pb2.GetTemplateRequest) -> int | None:
    """The version asked for, None for the newest."""
    return request.version if request.HasField("version") else None


def to_template(template: Template) -> template_pb2.Template:
    definition = template.definition
    return template_pb2.Template(
        name=definition.name,
        version=definition.version,
        description=definition.description,
        initial_state=definition.initial_state,
        states=[_state(state) for state in definition.states],
        transitions=[_transition(transition) for transition in definition.transitions],
        created_at=to_timestamp(template.created_at),
        max_retries=definition.max_retries,
    )


def _state(state: State) -> template_pb2.State:
    return template_pb2.State(
        name=state.name,
        owner_role=state.owner_role,
        phase=state.phase,
        terminal=state.terminal,
        description=state.description,
        handoff=state.handoff,
        deadline_seconds=state.deadline_seconds,
        ack_required=state.ack_required,
        ack_seconds=state.ack_seconds,
        run_for_role=state.run_for_role,
        result_schema=None if state.result_schema is None else to_struct(state.result_schema),
    )


def _transition(transition: Transition) -> template_pb2.Transition:
    return template_pb2.Transition(
        from_state=transition.from_state,
        to_state=transition.to_state,
        kind=template_pb2.TransitionKind.Value(f"TRANSITION_KIND_{transition.kind.name}"),
    )
