"""What bulk jobs are doing, and whether they get on."""

from __future__ import annotations

from typing import Final

from monitoring.dashboards.panels import ORANGE, RED, Dashboard, Query, stat, timeseries
from monitoring.dashboards.promql import per_range, per_second, quantile, share
from monitoring.dashboards.variables import DATASOURCE, labels_of

_RECORDS: Final = "ray_rowbeam_records_total"
_DONE: Final = 'sum(ray_rowbeam_job_records{state="done"})'
_LEFT: Final = 'sum(ray_rowbeam_job_records{state="left"})'
_JOB: Final = 'source="job",table=~"$table"'

_NOW: Final = (
    stat(
        "Jobs",
        "none",
        "Jobs that have not ended, by state. Interrupted ones wait to be resumed.",
        Query("max by (state) (ray_rowbeam_jobs)", "{{state}}"),
        width=8,
    ),
    stat(
        "Done",
        "percentunit",
        "Of the records of all running jobs.",
        Query(f"{_DONE} / ({_DONE} + {_LEFT} > 0)"),
        decimals=0,
    ),
    stat("Records left", "short", "Of all running jobs.", Query(_LEFT)),
    stat(
        "Time left",
        "s",
        "Of the job that will take longest, at its speed over the last 30 s.",
        Query(
            'max(sum by (WorkerId) (ray_rowbeam_job_records{state="left"})'
            " / (sum by (WorkerId) (ray_rowbeam_job_records_per_second) > 0))"
        ),
    ),
    stat(
        "Last part",
        "s",
        "How long ago the slowest running job last wrote a part of its work. Red where the alert begins.",
        Query("max(ray_rowbeam_job_last_part_age_seconds)"),
        thresholds=[(300, ORANGE), (900, RED)],
    ),
)

_PROGRESS: Final = (
    timeseries(
        "Speed",
        "none",
        "Records a second of each running job, over its last 30 s.",
        Query("sum by (WorkerId) (ray_rowbeam_job_records_per_second)", "job in {{WorkerId}}"),
        width=12,
    ),
    timeseries(
        "Records done and left",
        "short",
        "Of all running jobs.",
        Query(_DONE, "done"),
        Query(_LEFT, "left"),
        stacked=True,
        width=12,
    ),
    timeseries(
        "Age of the last part",
        "s",
        "Grows while a job writes nothing. The alert begins at the line.",
        Query("max by (WorkerId) (ray_rowbeam_job_last_part_age_seconds)", "job in {{WorkerId}}"),
        thresholds=[(900, RED)],
        width=12,
    ),
    timeseries(
        "Age of the heartbeat",
        "s",
        "How long ago the ledger heard of the running job that was silent longest.",
        Query("max(ray_rowbeam_job_heartbeat_age_seconds)", "oldest"),
        width=12,
    ),
)

_OUTCOMES: Final = (
    timeseries(
        "Records by outcome",
        "none",
        "Records a second, a record being one row for one vector type.",
        Query(per_second(_RECORDS, "outcome", _JOB), "{{outcome}}"),
        stacked=True,
    ),
    timeseries(
        "Records embedded by table",
        "none",
        "Records a second that went through a model.",
        Query(per_second(_RECORDS, "table", f'{_JOB},outcome="embedded"'), "{{table}}"),
        stacked=True,
    ),
    timeseries(
        "Unchanged",
        "percentunit",
        "Share of the records read that cost no model call because their text had not changed.",
        Query(
            share(
                per_second(_RECORDS, where=f'{_JOB},outcome="unchanged"'), per_second(_RECORDS, where=_JOB)
            ),
            "unchanged",
        ),
        top=1,
    ),
    timeseries(
        "Dead letters",
        "none",
        "Records set aside in the time shown, by table.",
        Query(per_range(_RECORDS, "table", f'{_JOB},outcome="dead"'), "{{table}}"),
    ),
    timeseries(
        "Reused vectors",
        "percentunit",
        "Share of the texts that took the vector of an equal text.",
        Query(
            share(
                per_second("ray_rowbeam_texts_total", where=f'{_JOB},outcome="reused"'),
                per_second("ray_rowbeam_texts_total", where=_JOB),
            ),
            "reused",
        ),
        top=1,
    ),
    timeseries(
        "Jobs that ended",
        "none",
        "In the time shown, by how.",
        Query(per_range("ray_rowbeam_jobs_ended_total", "state"), "{{state}}"),
    ),
)

_STAGES: Final = (
    timeseries(
        "Encoding: time of one batch",
        "s",
        "What the jobs' encoders take for a batch.",
        Query(
            quantile(0.5, "ray_rowbeam_encode_duration_seconds", "provider", 'source="job"'),
            "{{provider}} p50",
        ),
        Query(
            quantile(0.99, "ray_rowbeam_encode_duration_seconds", "provider", 'source="job"'),
            "{{provider}} p99",
        ),
    ),
    timeseries(
        "Writing: time of one upsert",
        "s",
        "What the store takes for the points of a part, of pushes too.",
        Query(
            quantile(0.5, "ray_rowbeam_store_operation_duration_seconds", where='operation="upsert"'), "p50"
        ),
        Query(
            quantile(0.99, "ray_rowbeam_store_operation_duration_seconds", where='operation="upsert"'), "p99"
        ),
    ),
    timeseries(
        "Gateway: requests of jobs",
        "reqps",
        "By outcome; throttled is a 429, after which the job waits.",
        Query(
            per_second("ray_rowbeam_gateway_request_duration_seconds_count", "outcome", 'lane="bulk"'),
            "{{outcome}}",
        ),
        stacked=True,
    ),
)

DASHBOARD: Final = Dashboard(
    uid="rowbeam-jobs",
    title="Rowbeam: jobs",
    description="What bulk jobs are doing, and whether they get on.",
    rows=(
        ("Now", _NOW),
        ("Progress", _PROGRESS),
        ("What became of the records", _OUTCOMES),
        ("Stages", _STAGES),
    ),
    variables=(DATASOURCE, labels_of("table", "Table", _RECORDS)),
    since="now-1h",
    refresh="15s",
)
