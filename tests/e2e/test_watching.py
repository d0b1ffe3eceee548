"""What somebody who runs Baton can see of it from outside: health and metrics."""

import re
from datetime import UTC, datetime, timedelta

import requests

from tests.support.baton import Baton, task
from tests.support.waiting import wait_until

# What the dashboards of the earlier scheduler ask for.
EARLIER = [
    "step_duration_seconds",
    "step_success_total",
    "step_failure_total",
    "runs_total",
    "scheduler_lag_seconds",
    "worker_heartbeat_total",
    "due_work_queue_depth",
    "task_duration_seconds",
    "tasks_created_total",
    "pipeline_executions_total",
    "active_workers",
    "lease_duration_seconds",
    "http_requests_total",
    "http_request_duration_seconds",
    "external_tool_calls_total",
    "external_tool_duration_seconds",
    "scheduler_ticks_total",
    "scheduler_jobs_created_total",
]
OURS = [
    "baton_queue_wait_seconds",
    "baton_queue_oldest_due_seconds",
    "baton_occurrences_total",
    "baton_loop_age_seconds",
    "baton_sessions",
    "baton_calls_total",
    "baton_call_duration_seconds",
    "baton_outbox_lag_seconds",
]
PROCESSES = {"gateway", "sessions", "tasks", "workflows", "worker"}


def families(text: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


def test_the_metrics_of_all_processes_are_on_one_page(baton: Baton) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    step = {"id": "only", "uses": "echo.test", "with": {"text": "x"}}
    once = task("Soon", step) | {"schedule_kind": "once", "schedule_expr": soon.isoformat()}
    created = baton.create("/tasks", once)
    wait_until(lambda: baton.get(f"/runs?task_id={created['id']}&status=succeeded")["items"])
    expected = {f"orchestrator_{name}" for name in EARLIER} | set(OURS)

    def page() -> str:
        answer = baton.call("GET", "/metrics")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return answer.text

    wait_until(lambda: expected <= families(page()))
    text = page()
    assert (
        set(re.findall(r'^baton_metrics_source_up{service_name="baton-(\w+)"} 1.0$', text, re.MULTILINE)) == PROCESSES
    )
    assert set(re.findall(r'^process_resident_memory_bytes{service_name="baton-(\w+)"}', text, re.M)) == PROCESSES
    assert 'orchestrator_pipeline_executions_total{outcome="succeeded",service_name="baton-worker"}' in text
    assert (
        'orchestrator_external_tool_calls_total{outcome="answered",service_name="baton-worker",tool="echo.test"}'
        in text
    )
    assert "baton_" + baton.admin_token.split("_")[1] not in text
    assert created["id"] not in text


def test_metrics_are_for_those_who_may_read_them(baton: Baton) -> None:
    assert baton.call("GET", "/metrics", token="").status_code == 401
    assert baton.call("GET", "/metrics", token=baton.agent_token(["tasks:read"])).status_code == 403
    assert baton.call("GET", "/metrics", token=baton.agent_token(["metrics:read"])).status_code == 200


def test_the_report_of_health_says_how_everything_is(baton: Baton) -> None:
    answer = requests.get(f"{baton.url}/health", timeout=10)
    report = answer.json()
    assert (answer.status_code, report["summary"]) == (200, "3 of 3 services are healthy")
    checks = {check["name"]: check for check in report["checks"]}
    assert {name for name in checks if "/" not in name} == {
        f"baton.{one}.v1" for one in PROCESSES - {"gateway", "worker"}
    }
    for service in ("sessions", "tasks", "workflows"):
        for name in ("database", "loops"):
            assert checks[f"baton.{service}.v1/{name}"]["status"] == "healthy", checks
    assert float(checks["baton.tasks.v1/scheduler"]["details"]["age_seconds"]) < 10
    assert float(checks["baton.tasks.v1/queue"]["details"]["oldest_due_seconds"]) >= 0
    assert int(checks["baton.tasks.v1/workers"]["details"]["active"]) >= 1
    assert float(checks["baton.tasks.v1/workers"]["details"]["last_asked_seconds"]) < 30
    assert report["version"]
