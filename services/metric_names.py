"""The names of all metrics, each spelled once. What each means stands where it is made, and in docs/operations.md.

In the text of Prometheus dots are underscores, a counter ends with `_total` and a unit is a suffix: what is here
`baton.outbox.lag` in seconds is there `baton_outbox_lag_seconds`.
"""

# What dashboards of an earlier scheduler know, under the names that they know it by.
STEP_DURATION = "orchestrator.step.duration"
STEP_SUCCESS = "orchestrator.step.success"
STEP_FAILURE = "orchestrator.step.failure"
RUNS = "orchestrator.runs"
RUNS_WATCHERS = "baton.runs.watchers"
SCHEDULER_LAG = "orchestrator.scheduler.lag"
WORKER_HEARTBEAT = "orchestrator.worker.heartbeat"
DUE_WORK_QUEUE_DEPTH = "orchestrator.due_work_queue_depth"
TASK_DURATION = "orchestrator.task.duration"
TASKS_CREATED = "orchestrator.tasks_created"
PIPELINE_EXECUTIONS = "orchestrator.pipeline_executions"
ACTIVE_WORKERS = "orchestrator.active_workers"
LEASE_DURATION = "orchestrator.lease.duration"
HTTP_REQUESTS = "orchestrator.http_requests"
HTTP_REQUEST_DURATION = "orchestrator.http_request.duration"
EXTERNAL_TOOL_CALLS = "orchestrator.external_tool_calls"
EXTERNAL_TOOL_DURATION = "orchestrator.external_tool.duration"
SCHEDULER_TICKS = "orchestrator.scheduler_ticks"
SCHEDULER_JOBS_CREATED = "orchestrator.scheduler_jobs_created"

# Every process.
CALLS = "baton.calls"
CALL_DURATION = "baton.call.duration"
LOOP_AGE = "baton.loop.age"
LOOP_FAILURES = "baton.loop.failures"
OUTBOX_LAG = "baton.outbox.lag"

# The queue and what fills it.
APPROVALS_EXPIRED = "baton.approvals.expired"
EVALUATIONS = "baton.evaluations"
EVENT_DELIVERIES = "baton.event.deliveries"
EVENT_LAG = "baton.event.lag"
LEASE_EXPIRIES = "baton.lease.expiries"
LEDGER = "baton.ledger"
OCCURRENCES = "baton.occurrences"
PROBE_LAG = "baton.probe.lag"
PROBE_REPORTS_REFUSED = "baton.probe.reports.refused"
QUEUE_OLDEST_DUE = "baton.queue.oldest_due"
QUEUE_WAIT = "baton.queue.wait"
REPORTS_REFUSED = "baton.reports.refused"
STREAM_CONNECTED = "baton.stream.connected"
STREAM_MESSAGES = "baton.stream.messages"
WEBHOOK_ATTEMPTS = "baton.webhook.attempts"
WEBHOOK_OLDEST_PENDING = "baton.webhook.oldest_pending"

# Workers.
WORKER_LEASE_FAILURES = "baton.worker.lease.failures"
WORKER_PROBES = "baton.worker.probes"
WORKER_RENEW_FAILURES = "baton.worker.renew.failures"

# Agents, their sessions and their logs.
AGENT_COST = "baton.agent.cost"
FEED_WATCHERS = "baton.feed.watchers"
LOGS_APPENDED = "baton.logs.appended"
LOGS_PRUNED = "baton.logs.pruned"
SESSIONS = "baton.sessions"
SESSIONS_EXPIRED = "baton.sessions.expired"

# Workflows.
HANDOFFS_EXPIRED = "baton.handoffs.expired"
WORKFLOWS_OVERDUE = "baton.workflows.overdue"

# The gateway.
REQUESTS_IN_PROGRESS = "baton.requests.in_progress"
METRICS_SOURCE_UP = "baton_metrics_source_up"
