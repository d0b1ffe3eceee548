"""What can go wrong with templates and workflows, one class for each fact."""

from collections.abc import Collection

from services.chassis.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound, PermissionDenied


class TemplateNotFound(NotFound):
    """There is no template of this name, or not this version of it."""

    def __init__(self, name: str, version: int | None) -> None:
        which = f"template {name!r}" if version is None else f"version {version} of template {name!r}"
        super().__init__(f"{which} not found", reason="TEMPLATE_NOT_FOUND", metadata={"name": name})


class TemplateVersionTaken(AlreadyExists):
    """A template says a number of itself that is not the next one."""

    def __init__(self, name: str, version: int, following: int) -> None:
        super().__init__(
            f"version {version} of template {name!r} cannot be stored: the next one is {following}; leave it out",
            reason="TEMPLATE_VERSION_TAKEN",
            metadata={"name": name, "next_version": str(following)},
        )


class WorkflowNotFound(NotFound):
    """No workflow has this id."""

    def __init__(self, workflow_id: str) -> None:
        super().__init__(
            f"workflow {workflow_id} not found", reason="WORKFLOW_NOT_FOUND", metadata={"workflow_id": workflow_id}
        )


class BuildExists(AlreadyExists):
    """Another workflow builds this."""

    def __init__(self, build_id: str) -> None:
        super().__init__(
            f"there is a workflow with the build_id {build_id!r} already: GET /api/workflows?build_id=... finds it",
            reason="BUILD_EXISTS",
            metadata={"build_id": build_id},
        )


class WorkflowEnded(FailedPrecondition):
    """The workflow is complete or was called off, and nothing about it changes any more."""

    def __init__(self, workflow_id: str, status: str) -> None:
        super().__init__(
            f"workflow {workflow_id} is {status}, which is final: start another one",
            reason="WORKFLOW_ENDED",
            metadata={"status": status},
        )


class StateNotCurrent(FailedPrecondition):
    """The workflow is in another state than somebody thinks."""

    def __init__(self, named: str, current: str) -> None:
        super().__init__(
            f"the workflow is in state {current!r}, and not in {named!r}: what is done now is {current!r}",
            reason="STATE_NOT_CURRENT",
            metadata={"current_state": current},
        )


class StateOfAnotherRole(PermissionDenied):
    """A role says of a state that it is done, which is not its own."""

    def __init__(self, role: str, state: str, owners: Collection[str]) -> None:
        super().__init__(
            f"state {state!r} is left by {_choices(owners)}, and not by the role {role!r}",
            reason="STATE_OF_ANOTHER_ROLE",
            metadata={"role": role, "allowed": ",".join(sorted(owners))},
        )


class RoleNotHeld(PermissionDenied):
    """Somebody speaks for a role that is not theirs."""

    def __init__(self, role: str, own: str) -> None:
        whose = f"the caller's role is {own!r}" if own else "the caller has no role"
        super().__init__(
            f"{whose}, and not {role!r}: an agent speaks for its own role, unless it holds 'admin'",
            reason="ROLE_NOT_HELD",
            metadata={"role": role, "own_role": own},
        )


class TransitionNotAllowed(FailedPrecondition):
    """The template has no such move."""

    def __init__(self, from_state: str, wanted: str, allowed: Collection[str]) -> None:
        super().__init__(
            f"nothing leads from {from_state!r} to {wanted!r}: it goes on to {_choices(allowed)}",
            reason="TRANSITION_NOT_ALLOWED",
            metadata={"from_state": from_state, "allowed": ",".join(allowed)},
        )


class RetryNotAllowed(FailedPrecondition):
    """The template sends nothing back from this state."""

    def __init__(self, state: str, allowed: Collection[str]) -> None:
        can = f"only {_choices(allowed)} can be" if allowed else "no state of this template can be"
        super().__init__(
            f"work in state {state!r} cannot be sent back to be done again: {can}; a rollback goes to any earlier one",
            reason="TRANSITION_NOT_ALLOWED",
            metadata={"from_state": state, "allowed": ",".join(allowed)},
        )


class HandoffNotFound(NotFound):
    """No hand-off has this id."""

    def __init__(self, handoff_id: str) -> None:
        super().__init__(
            f"hand-off {handoff_id} not found", reason="HANDOFF_NOT_FOUND", metadata={"handoff_id": handoff_id}
        )


class HandoffNotOffered(FailedPrecondition):
    """The hand-off is decided, or nobody had to decide."""

    def __init__(self, handoff_id: str, status: str) -> None:
        super().__init__(
            f"hand-off {handoff_id} is {status}, and only one that is offered is accepted or rejected",
            reason="HANDOFF_NOT_OFFERED",
            metadata={"status": status},
        )


class HandoffNotAccepted(FailedPrecondition):
    """Work is to go on that nobody has accepted yet."""

    def __init__(self, handoff_id: str, role: str) -> None:
        super().__init__(
            f"{role!r} has not accepted the work yet: POST /api/workflows/handoffs/{handoff_id}/accept, or /reject",
            reason="HANDOFF_NOT_ACCEPTED",
            metadata={"handoff_id": handoff_id, "to_role": role},
        )


class RetriesExhausted(FailedPrecondition):
    """Work was sent back as often as the template allows."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the work was sent back {limit} times, all that its template allows: roll it back, or let it fail",
            reason="RETRIES_EXHAUSTED",
            metadata={"max_retries": str(limit)},
        )


class WorkflowVersionMismatch(Aborted):
    """The workflow has changed since it was read."""

    def __init__(self, workflow_id: str, wanted: int, current: int) -> None:
        super().__init__(
            f"workflow {workflow_id} is at version {current}, and not {wanted}: read it again",
            reason="WORKFLOW_VERSION_MISMATCH",
            metadata={"version": str(current)},
        )


def _choices(names: Collection[str]) -> str:
    return " or ".join(map(repr, names)) or "nothing"
