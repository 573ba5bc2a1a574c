"""Every metric of Rowbeam. ``docs/metrics.md`` describes them under the names that Prometheus sees.

No label ever has a tenant's name or id, nor anything else that a caller makes up.
"""

from __future__ import annotations

from typing import Final

from ray_app.metrics.instruments import Counter, Gauge, Histogram, Instrument

#: The value of a label that does not apply: no provider was needed, or no table is concerned.
NONE: Final = "none"
#: The value of ``provider`` where several answered parts of one call.
SEVERAL: Final = "several"
#: Values of ``source``.
ONLINE: Final = "online"
JOB: Final = "job"

#: Seconds, from a store's quickest answer to a gateway's time-out.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: Texts of one batch.
TEXTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

#: Seconds for which a gauge that is looked up now and then is shown: several times as long as between looks.
_LOOKED_UP: Final = 60.0

_SPENT: Final = ("source", "table", "provider")
_ENCODED: Final = ("provider", "source")

HTTP_REQUESTS: Final = Counter(
    "rowbeam_http_requests_total",
    "HTTP requests that a router has answered.",
    ("method", "route", "status"),
)
HTTP_SECONDS: Final = Histogram(
    "rowbeam_http_request_duration_seconds",
    "From a request's arrival at the router to the end of its answer.",
    ("method", "route"),
    bounds=SECONDS,
)
HTTP_IN_PROGRESS: Final = Gauge(
    "rowbeam_http_requests_in_progress", "Requests that a router has not answered yet."
)
HTTP_ERRORS: Final = Counter(
    "rowbeam_http_errors_total", "Error answers by the code in their body.", ("code",)
)
HTTP_REFUSALS: Final = Counter(
    "rowbeam_http_refusals_total", "Requests answered 503 before they reached the API.", ("reason",)
)
RECORDS: Final = Counter(
    "rowbeam_records_total",
    "Records, a record being one row for one vector type, by what became of them.",
    (*_SPENT, "outcome"),
)
TEXTS_DONE: Final = Counter("rowbeam_texts_total", "Texts that got a vector.", (*_SPENT, "outcome"))
TOKENS: Final = Counter("rowbeam_tokens_total", "Tokens that providers read.", _SPENT)
COST: Final = Counter("rowbeam_cost_dollars_total", "What providers charged, in US dollars.", _SPENT)
PROVIDER_BUSY: Final = Counter("rowbeam_provider_seconds_total", "Time that providers took.", _SPENT)
PROVIDER_SECONDS: Final = Histogram(
    "rowbeam_provider_call_duration_seconds",
    "A call of a provider as the router saw it, queues included.",
    ("provider", "outcome"),
    bounds=SECONDS,
)
PROVIDER_UP: Final = Gauge(
    "rowbeam_provider_up", "Whether the router sends calls to the provider.", ("provider",)
)
GATEWAY_SECONDS: Final = Histogram(
    "rowbeam_gateway_request_duration_seconds",
    "One HTTP request to the gateway.",
    ("lane", "outcome"),
    bounds=SECONDS,
)
GATEWAY_CIRCUIT: Final = Gauge(
    "rowbeam_gateway_circuit_state", "1 for the breaker's state now, 0 for the others.", ("state",)
)
GATEWAY_OPENINGS: Final = Counter(
    "rowbeam_gateway_circuit_openings_total", "Times the breaker opened.", ("state",)
)
ENCODE_SECONDS: Final = Histogram(
    "rowbeam_encode_duration_seconds", "One batch in a local model.", _ENCODED, bounds=SECONDS
)
ENCODE_TEXTS: Final = Histogram("rowbeam_encode_batch_texts", "Texts of one batch.", _ENCODED, bounds=TEXTS)
ENCODE_TOKENS: Final = Counter("rowbeam_encode_tokens_total", "Tokens that local models read.", _ENCODED)
ENCODE_PADDING: Final = Counter(
    "rowbeam_encode_padding_tokens_total",
    "Positions that local models computed beside the tokens they read.",
    _ENCODED,
)
QUEUE_SECONDS: Final = Histogram(
    "rowbeam_queue_wait_seconds",
    "How long a call's first text waited for the model.",
    ("provider", "lane"),
    bounds=SECONDS,
)
QUEUE_TOKENS: Final = Gauge("rowbeam_queue_tokens", "Tokens that wait for the model.", ("provider", "lane"))
STORE_SECONDS: Final = Histogram(
    "rowbeam_store_operation_duration_seconds",
    "One call of the vector store.",
    ("engine", "operation", "outcome"),
    bounds=SECONDS,
)
ISOLATION_VIOLATIONS: Final = Counter(
    "rowbeam_isolation_violations_total",
    "Answers of the vector store with a point of another tenant in them. Must stay 0.",
)
JOB_RECORDS: Final = Gauge(
    "rowbeam_job_records", "Records of a running job.", ("state",), lifetime=_LOOKED_UP
)
JOB_RATE: Final = Gauge(
    "rowbeam_job_records_per_second", "Speed of a running job over its last 30 s.", lifetime=_LOOKED_UP
)
JOB_PART_AGE: Final = Gauge(
    "rowbeam_job_last_part_age_seconds",
    "How long ago a running job last wrote a part of its work.",
    lifetime=_LOOKED_UP,
)
JOB_HEARTBEAT_AGE: Final = Gauge(
    "rowbeam_job_heartbeat_age_seconds",
    "How long ago the ledger heard of a running job.",
    lifetime=_LOOKED_UP,
)
JOBS: Final = Gauge("rowbeam_jobs", "Jobs that have not ended.", ("state",), lifetime=_LOOKED_UP)
JOBS_ENDED: Final = Counter("rowbeam_jobs_ended_total", "Jobs that ended.", ("state",))
DEAD_LETTERS: Final = Gauge("rowbeam_dead_letters", "Open dead letters.", ("table",), lifetime=_LOOKED_UP)
LEDGER_LAG: Final = Gauge(
    "rowbeam_ledger_lag_seconds",
    "Age of the oldest change of a row that is not embedded yet.",
    ("table",),
    lifetime=_LOOKED_UP,
)
OUTBOX_ENTRIES: Final = Gauge(
    "rowbeam_outbox_entries", "Changes in the outbox that are not in their indexes yet.", lifetime=_LOOKED_UP
)
OUTBOX_AGE: Final = Gauge(
    "rowbeam_outbox_age_seconds", "How long the oldest change in the outbox has waited.", lifetime=_LOOKED_UP
)
OUTBOX_MISSED: Final = Gauge(
    "rowbeam_outbox_missed",
    "Statements whose changes the outbox could not note since it was installed.",
    lifetime=_LOOKED_UP,
)
SYNCS: Final = Counter("rowbeam_syncs_total", "Syncs that the server did by itself.", ("outcome",))
BUDGET_LIMIT: Final = Gauge(
    "rowbeam_budget_limit_dollars",
    "Monthly gateway budgets of all tenants that have one, in US dollars.",
    lifetime=_LOOKED_UP,
)
BUDGET_SPENT: Final = Gauge(
    "rowbeam_budget_spent_dollars",
    "What tenants with a budget have spent this month, in US dollars.",
    lifetime=_LOOKED_UP,
)
BUDGET_LEFT: Final = Gauge(
    "rowbeam_budget_left_dollars", "What is left of the budgets, in US dollars.", lifetime=_LOOKED_UP
)
BUDGET_USED: Final = Gauge(
    "rowbeam_budget_used_ratio",
    "The greatest share of its budget that any tenant has spent.",
    lifetime=_LOOKED_UP,
)
BUDGET_TENANTS: Final = Gauge(
    "rowbeam_budget_tenants",
    "Tenants with a budget, by how much of it is spent.",
    ("level",),
    lifetime=_LOOKED_UP,
)
TENANTS: Final = Gauge("rowbeam_tenants", "Active tenants.", lifetime=_LOOKED_UP)
ERASURE_OVERDUE: Final = Gauge(
    "rowbeam_erasure_overdue_seconds",
    "How long the round of an erasure has been due that has been due for longest; 0 when none is.",
    lifetime=_LOOKED_UP,
)
DEPENDENCY_UP: Final = Gauge(
    "rowbeam_dependency_up",
    "Whether a router reached what it depends on.",
    ("dependency",),
    lifetime=_LOOKED_UP,
)
REPORT_FAILURES: Final = Counter(
    "rowbeam_report_failures_total", "Reports on the ledger that could not be made.", ("report",)
)

#: All of them, in the order of the document.
DECLARED: Final[tuple[Instrument, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Instrument)
)
