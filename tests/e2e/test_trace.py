"""One trace: from the caller's request through queue and worker to the tool, and back to the report."""

from collections.abc import Sequence

import pytest

from tests.e2e.conftest import StartBaton
from tests.support.baton import Baton, task
from tests.support.otlp import Receiver, Span
from tests.support.waiting import wait_until

CALLERS_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLERS_SPAN = "00f067aa0ba902b7"


@pytest.mark.timeout(120)
def test_one_trace_runs_from_the_request_to_the_tool_call_and_the_report(
    engine: str, start_traced: StartBaton, receiver: Receiver
) -> None:
    baton = start_traced(BATON_DEMO="1")
    wait_until(lambda: baton.get("/runs?status=succeeded")["items"])
    created = baton.create(
        "/tasks",
        task("Traced", {"id": "ask", "uses": "time.get_current_time", "with": {"timezone": "UTC"}, "save_as": "t"}),
    )
    run_id = baton.run_now(created["id"], traceparent=f"00-{CALLERS_TRACE}-{CALLERS_SPAN}-01")
    run = baton.finished(run_id)
    assert run["trace_id"] == CALLERS_TRACE

    tree = Tree(receiver, CALLERS_TRACE)
    tree.wait_for("tasks", "baton.tasks.v1.WorkService/ReportRuns")
    edge = tree.one("gateway", "POST /tasks/{task_id}/run_now", "SERVER", parent=CALLERS_SPAN)
    out = tree.one("gateway", "baton.tasks.v1.TaskService/RunTaskNow", "CLIENT", parent=edge.span_id)
    served = tree.one("tasks", "baton.tasks.v1.TaskService/RunTaskNow", "SERVER", parent=out.span_id)
    assert_writes(tree.below(served), "runs", engine)

    execution = tree.one("worker", "run.execute", "CONSUMER", parent=served.span_id)
    step = tree.one("worker", "step.execute", "INTERNAL", parent=execution.span_id)
    [recorded] = baton.get(f"/runs/{run_id}/steps")["items"]
    assert recorded["span_id"] == step.span_id
    [call] = tree.below(step)
    assert (call.service, call.kind) == ("worker", "CLIENT")
    assert "get_current_time" in call.name

    report = tree.one("worker", "baton.tasks.v1.WorkService/ReportRuns", "CLIENT", parent=execution.span_id)
    taken = tree.one("tasks", "baton.tasks.v1.WorkService/ReportRuns", "SERVER", parent=report.span_id)
    assert_writes(tree.below(taken), "run_history", engine)
    assert_no_secrets(tree.spans, baton)


def assert_writes(children: Sequence[Span], table: str, engine: str) -> None:
    """Among the children of a server span there are SQL spans, and one of them writes to `table`."""
    statements = [span for span in children if "db.system" in span.attributes]
    texts = [str(span.attributes.get("db.statement")) for span in statements]
    assert any(text.startswith(f"INSERT INTO {table} ") for text in texts), texts
    system = {str(span.attributes["db.system"]) for span in statements}
    assert system == {"postgresql" if engine == "postgres" else "sqlite"}


def assert_no_secrets(spans: Sequence[Span], baton: Baton) -> None:
    for span in spans:
        assert baton.admin_token not in str(span.attributes)


class Tree:
    """The spans of one trace, found by who made them and whose children they are."""

    def __init__(self, receiver: Receiver, trace_id: str) -> None:
        self._receiver = receiver
        self._trace_id = trace_id

    @property
    def spans(self) -> list[Span]:
        return self._receiver.trace(self._trace_id)

    def wait_for(self, service: str, name: str) -> None:
        """Waits until such a span, which ends last, and all that were made before it have arrived."""
        wait_until(lambda: any((span.service, span.name) == (service, name) for span in self.spans))
        wait_until(lambda: {"gateway", "tasks", "worker"} <= {span.service for span in self.spans})
        wait_until(lambda: any(span.name == "run.execute" for span in self.spans))

    def one(self, service: str, name: str, kind: str, *, parent: str) -> Span:
        """The one span that is all of this."""
        wanted = (service, name, kind, parent)
        found = [span for span in self.spans if (span.service, span.name, span.kind, span.parent_id) == wanted]
        listing = "\n".join(sorted(f"{s.service} {s.name} {s.kind} {s.span_id} < {s.parent_id}" for s in self.spans))
        assert len(found) == 1, f"{len(found)} spans are {wanted}, out of:\n{listing}"
        return found[0]

    def below(self, parent: Span) -> list[Span]:
        """The children of a span."""
        return [span for span in self.spans if span.parent_id == parent.span_id]
