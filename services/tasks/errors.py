"""What can go wrong in the tasks context, one class per fact."""

from collections.abc import Collection, Mapping
from datetime import datetime

from services.chassis.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from services.tasks.models.approval import ApprovalStatus
from services.tasks.models.event import MAX_DEPTH
from services.tasks.models.run import RunStatus
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


class RunNotInProgress(FailedPrecondition):
    """What is done in the course of a run is done while somebody works on it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"nobody works on run {run_id} now: nothing can be done in its course",
            reason="RUN_NOT_IN_PROGRESS",
            metadata={"run_id": run_id},
        )


class LoopCut(FailedPrecondition):
    """Runs that start runs do not go on for ever."""

    def __init__(self) -> None:
        super().__init__(
            f"more than {MAX_DEPTH} events and runs followed from one another: a loop is cut here", reason="LOOP_CUT"
        )


class TaskCanceled(FailedPrecondition):
    """Canceled is final."""

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"task {task_id} is canceled, and that is final: create a new one",
            reason="TASK_CANCELED",
            metadata={"task_id": task_id},
        )


class TaskCompleted(FailedPrecondition):
    """A schedule that has fired for the last time cannot be paused."""

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"task {task_id} has fired for the last time: there is nothing to pause; a new schedule makes it active",
            reason="TASK_COMPLETED",
            metadata={"task_id": task_id},
        )


class TaskOfAnotherAgent(PermissionDenied):
    """Only a task's owner, or `admin`, changes it."""

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"task {task_id} belongs to another agent: only its owner changes it, or a caller with the scope 'admin'",
            reason="TASK_OF_ANOTHER_AGENT",
            metadata={"task_id": task_id},
        )


class CreatedByNotCaller(PermissionDenied):
    """Only `admin` creates tasks in another agent's name."""

    def __init__(self) -> None:
        super().__init__(
            "created_by names another agent: leave it out, or call with the scope 'admin'",
            reason="CREATED_BY_NOT_CALLER",
        )


class EventNotFound(NotFound):
    """No event has this id."""

    def __init__(self, event_id: str) -> None:
        super().__init__(f"event {event_id} does not exist", reason="EVENT_NOT_FOUND", metadata={"event_id": event_id})


class SourceNotCaller(PermissionDenied):
    """Only `admin` publishes in another agent's name."""

    def __init__(self) -> None:
        super().__init__(
            "source_agent_id names another agent: leave it out, or call with the scope 'admin'",
            reason="SOURCE_NOT_CALLER",
        )


class WebhookOfAgent(FailedPrecondition):
    """Where an agent is told of its runs is a field of the agent."""

    def __init__(self, webhook_id: str, agent_id: str) -> None:
        super().__init__(
            f"webhook {webhook_id} is the webhook_url of agent {agent_id}: change it there",
            reason="WEBHOOK_OF_AGENT",
            metadata={"webhook_id": webhook_id, "agent_id": agent_id},
        )


class TaskNotListening(FailedPrecondition):
    """An event is for those tasks that wait for its topic."""

    def __init__(self, task_id: str, topic: str) -> None:
        super().__init__(
            f"task {task_id} does not wait for {topic!r}: an event is for tasks with schedule_kind event, whose "
            "schedule_expr matches its topic, that are not canceled",
            reason="TASK_NOT_LISTENING",
            metadata={"task_id": task_id, "topic": topic},
        )


class RunNotFound(NotFound):
    """No run has this id."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} does not exist", reason="RUN_NOT_FOUND", metadata={"run_id": run_id})


class ChangesForgotten(Unavailable):
    """Who watches runs is so far behind that some of what has changed is not known any more."""

    def __init__(self) -> None:
        super().__init__(
            "some of what has changed since is not known any more: come again, and ask for all runs anew",
            reason="CHANGES_FORGOTTEN",
        )


class RunFinished(FailedPrecondition):
    """What is finished stays as it is."""

    def __init__(self, run_id: str, status: RunStatus) -> None:
        super().__init__(
            f"run {run_id} is {status}: a finished run does not change",
            reason="RUN_FINISHED",
            metadata={"run_id": run_id, "status": status.value},
        )


class RunNotFinished(FailedPrecondition):
    """Only a finished run is queued anew."""

    def __init__(self, run_id: str, status: RunStatus) -> None:
        super().__init__(
            f"run {run_id} is {status}: wait for its end, or cancel it",
            reason="RUN_NOT_FINISHED",
            metadata={"run_id": run_id, "status": status.value},
        )


class RunSucceeded(FailedPrecondition):
    """What succeeded is not done anew."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id} has succeeded: there is no failed step to begin from; run its task again instead",
            reason="RUN_SUCCEEDED",
            metadata={"run_id": run_id},
        )


class RunReported(FailedPrecondition):
    """What happened outside, Baton cannot do anew."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id} was reported from outside: only there it can be done anew",
            reason="RUN_REPORTED",
            metadata={"run_id": run_id},
        )


class RunOfAnotherAgent(PermissionDenied):
    """Only a run's owner, or `admin`, steers it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id} belongs to another agent: only its owner changes it, or a caller with the scope 'admin'",
            reason="RUN_OF_ANOTHER_AGENT",
            metadata={"run_id": run_id},
        )


class RunNotReported(FailedPrecondition):
    """What Baton runs itself, nobody else reports or decides."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id} is one of Baton's own: only a run that was reported from outside is changed here",
            reason="RUN_NOT_REPORTED",
            metadata={"run_id": run_id},
        )


class RunTransitionNotAllowed(FailedPrecondition):
    """Not every status may follow every other."""

    def __init__(self, run_id: str, status: RunStatus, wanted: RunStatus, allowed: Collection[RunStatus]) -> None:
        names = ", ".join(sorted(allowed))
        way = f"it may become {names}" if names else "approve, reject or cancel it"
        super().__init__(
            f"run {run_id} is {status} and cannot become {wanted}: {way}",
            reason="RUN_TRANSITION_NOT_ALLOWED",
            metadata={"run_id": run_id, "from": status.value, "to": wanted.value, "allowed": names},
        )


class RunNotAwaitingApproval(FailedPrecondition):
    """Only what waits for a decision is decided, and only once."""

    def __init__(self, run_id: str, status: RunStatus) -> None:
        super().__init__(
            f"run {run_id} is {status}: only a run that is awaiting_approval is approved, rejected or canceled",
            reason="RUN_NOT_AWAITING_APPROVAL",
            metadata={"run_id": run_id, "status": status.value},
        )


class ApproverIsRequester(PermissionDenied):
    """Nobody approves what they asked approval for."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id} is done by you or on your behalf: somebody else has to decide",
            reason="APPROVER_IS_REQUESTER",
            metadata={"run_id": run_id},
        )


class PruneIncomplete(DeadlineExceeded):
    """There was more to delete than the call had time for."""

    def __init__(self, deleted: int) -> None:
        super().__init__(
            f"{deleted} runs were deleted before the time was over: call again for the rest",
            reason="PRUNE_INCOMPLETE",
            metadata={"deleted": str(deleted)},
        )


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


class LeaseLost(FailedPrecondition):
    """A run is not, or no longer, held under this lease."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id} is not held under this lease any more", reason="LEASE_LOST", metadata={"run_id": run_id}
        )


class BudgetExceeded(ResourceExhausted):
    """An agent leases work whose budget is used up."""

    def __init__(self, reason: str, until: datetime | None, now: datetime) -> None:
        super().__init__(
            f"no more work for this agent: {reason}; wait for the next period, or have its limit raised",
            reason="BUDGET_EXCEEDED",
            retry_after=max(1.0, (until - now).total_seconds()) if until else 60.0,
        )


class RunsOfAnotherRole(PermissionDenied):
    """An agent that works as something does the work of that role."""

    def __init__(self, asked: str, own: str) -> None:
        super().__init__(
            f"runs of role {asked!r} are not for an agent whose role is {own!r}: leave the role out to get those of "
            "its own",
            reason="RUNS_OF_ANOTHER_ROLE",
            metadata={"role": asked, "own_role": own},
        )


class StepNotFound(NotFound):
    """The pipeline of a run has no such step."""

    def __init__(self, run_id: str, step_id: str) -> None:
        super().__init__(
            f"run {run_id} has no step {step_id!r}",
            reason="STEP_NOT_FOUND",
            metadata={"run_id": run_id, "step_id": step_id},
        )


class FileNotFound(NotFound):
    """No file has this digest, or it was kept no longer."""

    def __init__(self, digest: str) -> None:
        super().__init__(
            f"there is no file {digest}: files are kept as long as the runs that made them",
            reason="FILE_NOT_FOUND",
            metadata={"digest": digest},
        )


class ApprovalNotFound(NotFound):
    """No approval has this id."""

    def __init__(self, approval_id: str) -> None:
        super().__init__(
            f"approval {approval_id} does not exist, or is not open",
            reason="APPROVAL_NOT_FOUND",
            metadata={"approval_id": approval_id},
        )


class ApprovalDecided(FailedPrecondition):
    """A question is answered once."""

    def __init__(self, approval_id: str, status: ApprovalStatus) -> None:
        super().__init__(
            f"approval {approval_id} is {status} already: a question is answered once",
            reason="APPROVAL_DECIDED",
            metadata={"approval_id": approval_id, "status": status.value},
        )


class ApprovalExpired(FailedPrecondition):
    """Nobody decided in time, and that was the answer."""

    def __init__(self, approval_id: str) -> None:
        super().__init__(
            f"approval {approval_id} has expired: nobody decided in time, which counts as no",
            reason="APPROVAL_EXPIRED",
            metadata={"approval_id": approval_id},
        )


class ApprovalPending(FailedPrecondition):
    """One question about a run at a time."""

    def __init__(self, run_id: str, approval_id: str) -> None:
        super().__init__(
            f"run {run_id} waits for approval {approval_id} already: that has to be decided first",
            reason="APPROVAL_PENDING",
            metadata={"run_id": run_id, "approval_id": approval_id},
        )


class ApprovalNotGranted(FailedPrecondition):
    """A call is not made unless just this call was approved."""

    def __init__(self, approval_id: str, why: str) -> None:
        super().__init__(
            f"approval {approval_id} does not allow this call: {why}",
            reason="APPROVAL_NOT_GRANTED",
            metadata={"approval_id": approval_id},
        )


class ApproverRoleMissing(PermissionDenied):
    """Some questions are for one role."""

    def __init__(self, approval_id: str, role: str) -> None:
        super().__init__(
            f"approval {approval_id} is for agents with the role {role!r}",
            reason="APPROVER_ROLE_MISSING",
            metadata={"approval_id": approval_id, "role": role},
        )


class RunUnderWay(FailedPrecondition):
    """Whoever holds a run asks for its approval."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id} is under way: whoever holds its lease asks, by reporting it as awaiting_approval",
            reason="RUN_UNDER_WAY",
            metadata={"run_id": run_id},
        )


class NoLiveRun(FailedPrecondition):
    """A task has no run that has not ended."""

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"task {task_id} has no run that is queued or under way",
            reason="NO_LIVE_RUN",
            metadata={"task_id": task_id},
        )


class WebhookNotFound(NotFound):
    """No webhook has this id."""

    def __init__(self, webhook_id: str) -> None:
        super().__init__(
            f"webhook {webhook_id} does not exist", reason="WEBHOOK_NOT_FOUND", metadata={"webhook_id": webhook_id}
        )


class WebhookDeliveryNotFound(NotFound):
    """A webhook has no such delivery."""

    def __init__(self, webhook_id: str, delivery_id: str) -> None:
        super().__init__(
            f"webhook {webhook_id} has no delivery {delivery_id}: deliveries are kept as long as their events",
            reason="WEBHOOK_DELIVERY_NOT_FOUND",
            metadata={"webhook_id": webhook_id, "delivery_id": delivery_id},
        )


class WebhookDisabled(FailedPrecondition):
    """Nothing is sent to a webhook that is not enabled."""

    def __init__(self, webhook_id: str) -> None:
        super().__init__(
            f"webhook {webhook_id} is not enabled, so nothing is sent to it: enable it first",
            reason="WEBHOOK_DISABLED",
            metadata={"webhook_id": webhook_id},
        )


class TooManyWebhooks(ResourceExhausted):
    """There are as many webhooks as there may be."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"there are {most} webhooks, which is the most that there may be: delete one that nobody needs",
            reason="TOO_MANY_WEBHOOKS",
            metadata={"most": str(most)},
        )


class ToolServerManagedByFile(FailedPrecondition):
    """What the operator's file says, the API does not change."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"tool server {name!r} comes from the operator's file: change it there, and start the tasks service anew",
            reason="TOOL_SERVER_MANAGED_BY_FILE",
            metadata={"name": name},
        )


class ToolServerInUse(FailedPrecondition):
    """Tasks name tools of the server."""

    def __init__(self, name: str, titles: Mapping[str, str], *, more: bool) -> None:
        """`titles` are those of some of the tasks, by id; `more` says that there are others."""
        named = ", ".join(f"{title!r} ({task_id})" for task_id, title in titles.items())
        super().__init__(
            f"tasks use tool server {name!r}: {named}{' and more' if more else ''}; "
            "change or cancel them, disable the server, or delete it with force=true",
            reason="TOOL_SERVER_IN_USE",
            metadata={"name": name, "task_ids": ",".join(titles)},
        )
