"""Counts of runs."""

from baton.tasks.v1 import run_service_pb2 as pb

from services.chassis.timestamps import to_timestamp
from services.tasks.models.run import RunStatus
from services.tasks.store.statistics import RunStats, Summary


def stats_message(stats: RunStats, days: int) -> pb.RunStats:
    """The counts of so many days."""
    return pb.RunStats(
        days=days,
        total_runs=stats.total,
        successful_runs=stats.ended[RunStatus.SUCCEEDED],
        failed_runs=stats.ended[RunStatus.FAILED],
        skipped_runs=stats.ended[RunStatus.SKIPPED],
        canceled_runs=stats.ended[RunStatus.CANCELED],
        live_runs=stats.live,
        success_rate=_rounded(stats.rate(RunStatus.SUCCEEDED)),
        failure_rate=_rounded(stats.rate(RunStatus.FAILED)),
        avg_duration_seconds=_rounded(stats.avg_duration_seconds),
        last_run_at=to_timestamp(stats.last_run_at),
        last_success_at=to_timestamp(stats.last_success_at),
        last_failure_at=to_timestamp(stats.last_failure_at),
    )


def summary_message(summary: Summary, days: int) -> pb.GetRunStatsSummaryResponse:
    """The counts of all tasks."""
    return pb.GetRunStatsSummaryResponse(
        stats=stats_message(summary.stats, days),
        total_tasks_executed=summary.tasks,
        runs_per_day=round(summary.stats.total / days, 1),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
