"""Is the server well, and if not, which part of it."""

from __future__ import annotations

from typing import Final

from monitoring.dashboards.panels import GREEN, ORANGE, RED, Dashboard, Query, stat, states, timeseries
from monitoring.dashboards.promql import per_range, per_second, quantile, share
from monitoring.dashboards.variables import DATASOURCE

_REQUESTS: Final = "ray_rowbeam_http_requests_total"
_REFUSALS: Final = "ray_rowbeam_http_refusals_total"
_DURATION: Final = "ray_rowbeam_http_request_duration_seconds"
_STORE: Final = "ray_rowbeam_store_operation_duration_seconds"
_WAIT: Final = "ray_rowbeam_queue_wait_seconds"
_UP: Final = {0: ("down", RED), 1: ("up", GREEN)}

_NOW: Final = (
    stat(
        "Alerts firing",
        "none",
        "Alerts of Rowbeam that fire now; docs/operations.md has a section for each.",
        Query('count(ALERTS{alertname=~"Rowbeam.+",alertstate="firing"}) or vector(0)'),
        thresholds=[(1, RED)],
    ),
    stat(
        "Isolation violations",
        "none",
        "Answers of the store with a point of another tenant in them, dropped whole. Must stay 0.",
        Query("sum(ray_rowbeam_isolation_violations_total) or vector(0)"),
        thresholds=[(1, RED)],
    ),
    stat(
        "Requests",
        "reqps",
        "Requests answered, of all routes.",
        Query(per_second(_REQUESTS)),
        decimals=1,
    ),
    stat(
        "Search p99",
        "s",
        "One search in a hundred takes longer. Red where the alert begins.",
        Query(quantile(0.99, _DURATION, where='route="/v1/search"')),
        thresholds=[(0.5, ORANGE), (1, RED)],
        decimals=2,
    ),
    stat(
        "Open dead letters",
        "none",
        "Records that could not be embedded and wait for somebody.",
        Query("sum(max by (table) (ray_rowbeam_dead_letters)) or vector(0)"),
        thresholds=[(1, ORANGE)],
    ),
    stat(
        "Ledger lag",
        "s",
        "Age of the oldest change that is not embedded yet, over all tables.",
        Query("max(ray_rowbeam_ledger_lag_seconds)"),
        thresholds=[(3600, ORANGE), (21600, RED)],
    ),
)

_HTTP: Final = (
    timeseries(
        "Requests by status",
        "reqps",
        "Answers by the class of their status. 4xx are callers' errors and limits, 5xx the server's.",
        Query(per_second(_REQUESTS, "status"), "{{status}}"),
        Query(per_second(_REFUSALS, "reason"), "503 before the API: {{reason}}"),
        stacked=True,
    ),
    timeseries(
        "Share of server errors",
        "percentunit",
        "5xx among all answers of the API. The alert begins at the line.",
        Query(share(per_second(_REQUESTS, where='status="5xx"'), per_second(_REQUESTS)), "5xx"),
        thresholds=[(0.05, RED)],
    ),
    timeseries(
        "Latency of searches",
        "s",
        "From a search's arrival at the router to the end of its answer.",
        *(
            Query(quantile(q, _DURATION, where='route="/v1/search"'), f"p{q * 100:.0f}")
            for q in (0.5, 0.95, 0.99)
        ),
        thresholds=[(1, RED)],
    ),
    timeseries(
        "p99 by route",
        "s",
        "The slowest hundredth of each route. A push or an embeddings request may have a thousand texts.",
        Query(quantile(0.99, _DURATION, "route", 'route=~"/v1/.+"'), "{{route}}"),
    ),
    timeseries(
        "Requests in progress",
        "none",
        "Requests a router has not answered yet. Flat at its top means that callers wait.",
        Query("sum(ray_rowbeam_http_requests_in_progress)", "in progress"),
    ),
    timeseries(
        "Error answers by code",
        "reqps",
        "The code in the body of error answers: what callers are told.",
        Query(per_second("ray_rowbeam_http_errors_total", "code"), "{{code}}"),
        stacked=True,
    ),
)

_DEPENDENCIES: Final = (
    states(
        "What it depends on",
        "Whether every router reaches the ledger, the platform's tables and the vector store.",
        Query("min by (dependency) (ray_rowbeam_dependency_up)", "{{dependency}}"),
        words=_UP,
    ),
    states(
        "Deployments",
        "Ray Serve's status of each part of the application.",
        Query('min by (deployment) (ray_serve_deployment_status{application="rowbeam"})', "{{deployment}}"),
        words={
            0: ("unknown", RED),
            1: ("failed to deploy", RED),
            2: ("unhealthy", RED),
            3: ("updating", "blue"),
            4: ("scaling up", "blue"),
            5: ("scaling down", "blue"),
            6: ("healthy", GREEN),
        },
    ),
    states(
        "Processes that Prometheus asks",
        "Whether each node, the dashboard and the autoscaler answered the latest scrape.",
        Query('up{job="ray"}', "{{instance}}"),
        words=_UP,
    ),
)

_STORE_ROW: Final = (
    timeseries(
        "Vector store: p99 by operation",
        "s",
        "The slowest hundredth of the store's calls.",
        Query(quantile(0.99, _STORE, "operation"), "{{operation}}"),
    ),
    timeseries(
        "Vector store: calls",
        "ops",
        "Calls by operation.",
        Query(per_second(f"{_STORE}_count", "operation"), "{{operation}}"),
        stacked=True,
    ),
    timeseries(
        "Vector store: failed calls",
        "ops",
        "Calls that ended in an error, by operation.",
        Query(per_second(f"{_STORE}_count", "operation", 'outcome="error"'), "{{operation}}"),
    ),
)

_MODEL: Final = (
    timeseries(
        "Waiting for the model",
        "s",
        "How long a call's first text waits for its turn. A caller's lane goes before the jobs'.",
        Query(quantile(0.5, _WAIT, "lane"), "{{lane}} p50"),
        Query(quantile(0.99, _WAIT, "lane"), "{{lane}} p99"),
    ),
    timeseries(
        "Tokens that wait",
        "none",
        "Tokens in the queues of the local models' replicas.",
        Query("sum by (provider, lane) (ray_rowbeam_queue_tokens)", "{{provider}} {{lane}}"),
        stacked=True,
    ),
    timeseries(
        "Padding",
        "percentunit",
        "Share of what the model computes that is padding, for texts of unequal length in one batch.",
        Query(
            share(
                per_second("ray_rowbeam_encode_padding_tokens_total", "provider"),
                "("
                + per_second("ray_rowbeam_encode_padding_tokens_total", "provider")
                + " + "
                + per_second("ray_rowbeam_encode_tokens_total", "provider")
                + ")",
            ),
            "{{provider}}",
        ),
        top=1,
    ),
)

_LEDGER: Final = (
    timeseries(
        "Ledger lag by table",
        "s",
        "Age of the oldest change of each table that is not embedded yet. The alert begins at the line.",
        Query("max by (table) (ray_rowbeam_ledger_lag_seconds)", "{{table}}"),
        thresholds=[(21600, RED)],
    ),
    timeseries(
        "Open dead letters by table",
        "none",
        "Records that could not be embedded.",
        Query("max by (table) (ray_rowbeam_dead_letters)", "{{table}}"),
        stacked=True,
    ),
    timeseries(
        "Reports that failed",
        "none",
        "Reports on the ledger that could not be made. Without them the two panels beside stand still.",
        Query(per_range("ray_rowbeam_report_failures_total", "report"), "{{report}}"),
    ),
)

_IN_STEP: Final = (
    timeseries(
        "Outbox: oldest change",
        "s",
        "How long the oldest change in the outbox has waited. The alert begins at the line.",
        Query("max(ray_rowbeam_outbox_age_seconds)", "oldest"),
        thresholds=[(300, RED)],
    ),
    timeseries(
        "Outbox: changes",
        "none",
        "Changes that wait, and statements whose changes could not be noted since it was installed.",
        Query("max(ray_rowbeam_outbox_entries)", "waiting"),
        Query("max(ray_rowbeam_outbox_missed)", "missed statements"),
    ),
    timeseries(
        "Syncs on a schedule",
        "none",
        "Syncs that the server did by itself, by how they ended; a job does the rest of large ones.",
        Query(per_range("ray_rowbeam_syncs_total", "outcome"), "{{outcome}}"),
        stacked=True,
    ),
    timeseries(
        "Erasures: longest due",
        "s",
        "How long a removed tenant's next round has been due. The alert begins at the line.",
        Query("max(ray_rowbeam_erasure_overdue_seconds)", "due for"),
        thresholds=[(3600, RED)],
    ),
)

DASHBOARD: Final = Dashboard(
    uid="rowbeam-operations",
    title="Rowbeam: operations",
    description="Is the server well, and if not, which part of it.",
    rows=(
        ("Now", _NOW),
        ("HTTP", _HTTP),
        ("Parts", _DEPENDENCIES),
        ("Vector store", _STORE_ROW),
        ("Local model", _MODEL),
        ("Ledger", _LEDGER),
        ("In step", _IN_STEP),
    ),
    variables=(DATASOURCE,),
)
