"""Calls of tools, and what they result in."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mcp_types
import orjson
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from services.chassis import telemetry
from services.chassis.errors import Internal, ServiceError, Unauthenticated
from services.gateway.backends import Metadata
from services.gateway.mcp.catalogue import Tool
from services.gateway.problems import problem_document, retry_after_seconds

REPLAYED = "baton/idempotent-replayed"
"""In a result's `_meta`: it is that of an earlier call with the same key."""
# OpenTelemetry semantic conventions of MCP.
_METHOD, _NAME = "mcp.method.name", "gen_ai.tool.name"
_log = logging.getLogger(__name__)


@dataclass
class Visit:
    """One HTTP request to the endpoint, and what comes of it."""

    metadata: Metadata
    """What the services are sent along: the request's id and the caller's access token."""
    path: str
    request_id: str
    span: Span
    noted: dict[str, str]
    """What the access log is to say beside the request itself."""
    refusal: Unauthenticated | None = None
    """That a service does not take the caller's token, which HTTP has an answer of its own for."""


async def perform(
    name: str, tool: Tool, arguments: Mapping[str, Any], meta: Mapping[str, Any] | None, visit: Visit
) -> mcp_types.CallToolResult:
    """Calls the tool. What goes wrong is a result that says so, as a problem document does."""
    visit.noted["tool"] = name
    with _span(name, meta, visit) as span:
        try:
            response, is_replay = await tool.call(tool.read(arguments), visit.metadata)
            return _result(orjson.dumps(tool.print(response)), is_replay)
        except ServiceError as error:
            if isinstance(error, Internal):
                _log.error("request_failed", exc_info=True)
            told = error
        except Exception:
            _log.exception("request_failed")
            told = Internal("internal error")
        if isinstance(told, Unauthenticated):
            visit.refusal = told
        return _failure(told, span, visit)


def _result(answer: bytes, is_replay: bool) -> mcp_types.CallToolResult:
    return mcp_types.CallToolResult(
        content=[mcp_types.TextContent(text=answer.decode())],
        # Read back, so that it is what the text says to the last digit.
        structured_content=orjson.loads(answer),
        _meta={REPLAYED: True} if is_replay else None,
    )


def _failure(error: ServiceError, span: Span, visit: Visit) -> mcp_types.CallToolResult:
    problem = problem_document(error, path=visit.path, request_id=visit.request_id)
    if error.retry_after is not None:
        # REST has a header for it.
        problem["retry_after_seconds"] = retry_after_seconds(error.retry_after)
    visit.noted["reason"] = problem["reason"]
    span.set_attribute(telemetry.ERROR_TYPE, "tool_error")
    span.set_attribute(telemetry.ERROR_REASON, problem["reason"])
    span.set_status(Status(StatusCode.ERROR))
    # As text alone: clients hold what is structured against the schema of an answer, and would hide this one.
    return mcp_types.CallToolResult(content=[mcp_types.TextContent(text=orjson.dumps(problem).decode())], is_error=True)


@contextmanager
def _span(name: str, meta: Mapping[str, Any] | None, visit: Visit) -> Iterator[Span]:
    """The span of a call: it continues the trace that came with the call itself, or else that of its HTTP request."""
    request = trace.set_span_in_context(visit.span)
    told = _told_context(meta)
    with telemetry.tracer().start_as_current_span(
        f"tools/call {name}",
        context=told or request,
        kind=SpanKind.SERVER,
        attributes={_METHOD: "tools/call", _NAME: name},
        links=[Link(visit.span.get_span_context())] if told else None,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield span


def _told_context(meta: Mapping[str, Any] | None) -> Context | None:
    carrier = {key: value for key, value in (meta or {}).items() if isinstance(value, str)}
    if "traceparent" not in carrier:
        return None
    context = telemetry.remote_context(carrier)
    return context if trace.get_current_span(context).get_span_context().is_valid else None
