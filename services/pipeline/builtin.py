"""The tools that need no server: what they are called, take and answer. The worker does them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BuiltinTool:
    """A tool that comes with Baton."""

    address: str
    description: str
    input_schema: Mapping[str, Any]
    """The JSON Schema of its input."""
    output_schema: Mapping[str, Any]
    """The JSON Schema of what it answers."""
    scopes: tuple[str, ...] = ()
    """What the task's owner must hold."""


_ECHO = BuiltinTool("echo.test", "Answers its input unchanged.", {"type": "object"}, {"type": "object"})

_QUERY_VALUE = {"type": ["string", "number", "boolean"]}
_HTTP_REQUEST = BuiltinTool(
    "http.request",
    "Makes a request over HTTP and answers its status, headers and body. It reaches public addresses over https, and "
    "what the operator allows.",
    {
        "type": "object",
        "properties": {
            "url": {"type": "string", "description": "Where to: https://host/path."},
            "method": {"enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], "default": "GET"},
            "headers": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Headers by their names, but for those that belong to the connection.",
            },
            "query": {
                "type": "object",
                "additionalProperties": {"anyOf": [_QUERY_VALUE, {"type": "array", "items": _QUERY_VALUE}]},
                "description": "What is added to the URL's query; a list repeats its name.",
            },
            "json": {"description": "The body, any JSON value; not together with text."},
            "text": {"type": "string", "description": "The body as it is; not together with json."},
            "follow_redirects": {"type": "boolean", "default": False, "description": "Follow up to 5 redirects."},
            "expect_status": {
                "type": "array",
                "items": {"type": "integer", "minimum": 200, "maximum": 599},
                "minItems": 1,
                "description": "The statuses that are a success, instead of all from 200 to 299.",
            },
        },
        "required": ["url"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {
            "status": {"type": "integer"},
            "headers": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "By their names in lower case, without set-cookie.",
            },
            "url": {"type": "string", "description": "Where the answer is from, after all redirects."},
            "json": {"description": "The body, when it is JSON and says so."},
            "text": {"type": "string", "description": "The body, when it is other text, or empty."},
            "base64": {"type": "string", "description": "The body, when it is no text."},
        },
        "required": ["status", "headers", "url"],
        "additionalProperties": False,
        "oneOf": [{"required": ["json"]}, {"required": ["text"]}, {"required": ["base64"]}],
    },
)

_EVENTS_PUBLISH = BuiltinTool(
    "events.publish",
    "Publishes an event in the name of the task's owner. It is published once, however often the step is tried.",
    {
        "type": "object",
        "properties": {
            "topic": {"type": "string", "minLength": 1, "maxLength": 100, "description": "What happened: orders.paid."},
            "payload": {"type": "object", "default": {}, "description": "What there is to know of it."},
        },
        "required": ["topic"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {
            "event_id": {"type": "string", "description": "The event, for GET /events/{event_id}."},
            "triggered_tasks": {
                "type": "array",
                "items": {"type": "string"},
                "description": "The ids of the tasks of which a run was queued at once.",
            },
        },
        "required": ["event_id", "triggered_tasks"],
    },
    scopes=("events:publish",),
)

_TASKS_RUN = BuiltinTool(
    "tasks.run",
    "Queues a run of a task of the same owner, and does not wait for it. It is queued once, however often the step is "
    "tried.",
    {
        "type": "object",
        "properties": {
            "task_id": {"type": "string", "format": "uuid", "description": "The task."},
            "params": {"type": "object", "default": {}, "description": "Added to the task's own, or replacing them."},
        },
        "required": ["task_id"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {
            "run_id": {"type": "string", "description": "The run, for GET /runs/{run_id}."},
            "duplicate": {
                "type": "boolean",
                "description": "Whether an earlier run with the task's dedupe key stands for it, and none was queued.",
            },
        },
        "required": ["run_id", "duplicate"],
    },
    scopes=("tasks:write",),
)

_SESSIONS_LOG = BuiltinTool(
    "sessions.log",
    "Adds an entry to the log of the task's owner. It is added once, however often the step is tried.",
    {
        "type": "object",
        "properties": {
            "content": {"type": "string", "maxLength": 32768, "description": "What there is to say."},
            "event_category": {"enum": ["hook", "response"], "default": "response", "description": "Where it is from."},
            "event_type": {
                "type": "string",
                "pattern": "^[A-Za-z0-9_.-]{1,64}$",
                "default": "text",
                "description": "What it is.",
            },
            "task_slug": {"type": "string", "maxLength": 100, "description": "The piece of work that it belongs to."},
            "session_id": {"type": "string", "maxLength": 200, "description": "The session that it belongs to."},
            "summary": {"type": "string", "maxLength": 2000, "description": "It in short."},
            "payload": {"type": "object", "default": {}, "description": "What belongs to it."},
        },
        "required": ["content"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {"entry_index": {"type": "integer", "description": "The entry's number within its task_slug."}},
        "required": ["entry_index"],
    },
    scopes=("logs:write",),
)

_ROLE_AND_STATE = {"type": "string", "minLength": 1, "maxLength": 64}
_WORKFLOWS_START = BuiltinTool(
    "workflows.start",
    "Starts a workflow in the name of the task's owner. It is started once, however often the step is tried.",
    {
        "type": "object",
        "properties": {
            "project_id": {"type": "string", "minLength": 1, "maxLength": 100, "description": "Where it belongs."},
            "build_id": {"type": "string", "minLength": 1, "maxLength": 100, "description": "What is built."},
            "template": {"type": "string", "default": "build", "description": "The template that it follows."},
            "user_id": {"type": "string", "maxLength": 100, "description": "Whom it is done for."},
            "requirements": {"type": "object", "default": {}, "description": "What is wanted."},
            "metadata": {"type": "object", "default": {}, "description": "What else to keep."},
        },
        "required": ["project_id", "build_id"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {
            "workflow_id": {"type": "string", "description": "The workflow, for GET /api/workflows/{workflow_id}."},
            "initial_state": {"type": "string", "description": "The state that it begins in."},
            "current_role": {"type": "string", "description": "The role that begins."},
        },
        "required": ["workflow_id", "initial_state", "current_role"],
    },
    scopes=("workflows:write",),
)

_WORKFLOWS_ADVANCE = BuiltinTool(
    "workflows.advance",
    "Says that the work of a state is done, in the role of the task's owner. It goes on once, however often the step "
    "is tried.",
    {
        "type": "object",
        "properties": {
            "workflow_id": {"type": "string", "format": "uuid", "description": "The workflow."},
            "role": {**_ROLE_AND_STATE, "description": "The role that owns the state."},
            "completed_state": {**_ROLE_AND_STATE, "description": "The state that is done."},
            "phase_result": {"type": "object", "default": {}, "description": "What came of it."},
            "next_state": {"type": "string", "maxLength": 64, "description": "Where to go on; default: the next one."},
        },
        "required": ["workflow_id", "role", "completed_state"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {
            "previous_state": {"type": "string", "description": "The state that was left."},
            "new_state": {"type": "string", "description": "The state that it is in."},
            "next_role": {"type": "string", "description": "The role that goes on; empty for nobody."},
            "is_complete": {"type": "boolean", "description": "Whether the workflow is done."},
            "handoff_data": {"type": "object", "description": "What is handed over."},
        },
        "required": ["previous_state", "new_state", "next_role", "is_complete", "handoff_data"],
    },
    scopes=("workflows:write",),
)

BUILTIN_TOOLS: Mapping[str, BuiltinTool] = {
    tool.address: tool
    for tool in (
        _ECHO,
        _EVENTS_PUBLISH,
        _HTTP_REQUEST,
        _SESSIONS_LOG,
        _TASKS_RUN,
        _WORKFLOWS_ADVANCE,
        _WORKFLOWS_START,
    )
}
