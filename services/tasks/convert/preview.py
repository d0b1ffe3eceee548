"""Previews."""

from baton.tasks.v1 import task_service_pb2

from services.chassis.structs import to_struct
from services.pipeline.sketch import StepSketch
from services.tasks.convert.occurrence import fire_time_message
from services.tasks.operations.preview import Preview


def preview_response(preview: Preview) -> task_service_pb2.PreviewTaskResponse:
    """What a task would do."""
    return task_service_pb2.PreviewTaskResponse(
        valid=not preview.faults,
        errors=[
            task_service_pb2.PreviewFault(field=fault.field, description=fault.description) for fault in preview.faults
        ],
        steps=[_step_message(step) for step in preview.steps],
        fire_times=[fire_time_message(time) for time in preview.fire_times],
        event_matches=preview.event_matches,
        event_reason=preview.event_reason,
        condition_holds=preview.condition_holds,
        condition_reason=preview.condition_reason,
        probe=_step_message(preview.probe) if preview.probe else None,
    )


def _step_message(step: StepSketch) -> task_service_pb2.PreviewStep:
    return task_service_pb2.PreviewStep(
        id=step.id,
        uses=step.uses,
        condition=step.condition,
        items=step.items,
        # `with` is a word of Python's.
        **{"with": to_struct(step.with_)},
        unresolved=[
            task_service_pb2.PreviewFault(field=problem.field, description=problem.description)
            for problem in step.unresolved
        ],
    )
