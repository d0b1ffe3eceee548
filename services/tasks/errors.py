"""What can go wrong in the tasks context, one class per fact."""

from services.chassis.errors import AlreadyExists, FailedPrecondition, NotFound, PermissionDenied
from services.tasks.models.task import TaskStatus


class TaskNotFound(NotFound):
    """No task has this id."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"task {task_id} does not exist", reason="TASK_NOT_FOUND", metadata={"task_id": task_id})


class TaskNotActive(FailedPrecondition):
    """A task that is paused or canceled does not run."""

    def __init__(self, task_id: str, status: TaskStatus) -> None:
        super().__init__(
            f"task {task_id} is {status}: only an active task runs",
            reason="TASK_NOT_ACTIVE",
            metadata={"task_id": task_id, "status": status.value},
        )


class CreatedByNotCaller(PermissionDenied):
    """Only `admin` creates tasks in another agent's name."""

    def __init__(self) -> None:
        super().__init__(
            "created_by names another agent: leave it out, or call with the scope 'admin'",
            reason="CREATED_BY_NOT_CALLER",
        )


class RunNotFound(NotFound):
    """No run has this id."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} does not exist", reason="RUN_NOT_FOUND", metadata={"run_id": run_id})


class ToolServerNameTaken(AlreadyExists):
    """Tool servers have unique names."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"a tool server {name!r} exists already", reason="TOOL_SERVER_NAME_TAKEN", metadata={"name": name}
        )


class ToolServerNotFound(NotFound):
    """No tool server has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"tool server {name!r} does not exist", reason="TOOL_SERVER_NOT_FOUND", metadata={"name": name}
        )
