"""What embeds, how fast, and what it costs."""

from __future__ import annotations

from typing import Final

from monitoring.dashboards.panels import GREEN, ORANGE, RED, Dashboard, Query, stat, states, timeseries
from monitoring.dashboards.promql import per_range, per_second, quantile, share
from monitoring.dashboards.variables import DATASOURCE, labels_of

_CALL: Final = "ray_rowbeam_provider_call_duration_seconds"
_GATEWAY: Final = "ray_rowbeam_gateway_request_duration_seconds"
_COST: Final = "ray_rowbeam_cost_dollars_total"
_TOKENS: Final = "ray_rowbeam_tokens_total"
_TEXTS: Final = "ray_rowbeam_texts_total"
_BATCH: Final = "ray_rowbeam_encode_duration_seconds"
_CHOSEN: Final = 'provider=~"$provider"'

_NOW: Final = (
    stat(
        "Spent in the time shown",
        "currencyUSD",
        "What providers charged, failed calls included.",
        Query(f"{per_range(_COST, where=_CHOSEN)} or vector(0)"),
        decimals=2,
    ),
    stat(
        "Tokens in the time shown",
        "short",
        "Tokens that providers read.",
        Query(f"{per_range(_TOKENS, where=_CHOSEN)} or vector(0)"),
    ),
    stat(
        "Budgets: limit",
        "currencyUSD",
        "Monthly gateway budgets of all tenants that have one.",
        Query("max(ray_rowbeam_budget_limit_dollars)"),
        decimals=2,
    ),
    stat(
        "Budgets: left",
        "currencyUSD",
        "What is left of them this month (UTC); a tenant that has overspent counts as 0.",
        Query("max(ray_rowbeam_budget_left_dollars)"),
        decimals=2,
    ),
    stat(
        "Greatest share spent",
        "percentunit",
        "Of its budget, by any tenant.",
        Query("max(ray_rowbeam_budget_used_ratio)"),
        thresholds=[(0.8, ORANGE), (1, RED)],
        decimals=0,
    ),
    stat(
        "Tenants without budget left",
        "none",
        "The gateway is closed to them until the month is over or their budget is raised.",
        Query('max(ray_rowbeam_budget_tenants{level="100"})'),
        thresholds=[(1, RED)],
    ),
)

_CALLS: Final = (
    states(
        "Providers",
        "Whether every router sends calls to the provider; it is left out for a while after a failure.",
        Query(f"min by (provider) (ray_rowbeam_provider_up{{{_CHOSEN}}})", "{{provider}}"),
        words={0: ("left out", RED), 1: ("in use", GREEN)},
    ),
    timeseries(
        "Calls by outcome",
        "ops",
        "Calls of providers as the router sees them.",
        Query(per_second(f"{_CALL}_count", "provider, outcome", _CHOSEN), "{{provider}} {{outcome}}"),
        stacked=True,
    ),
    timeseries(
        "Latency of calls",
        "s",
        "A call with its time in queues.",
        Query(quantile(0.5, _CALL, "provider", _CHOSEN), "{{provider}} p50"),
        Query(quantile(0.99, _CALL, "provider", _CHOSEN), "{{provider}} p99"),
    ),
)

_SPEED: Final = (
    timeseries(
        "Tokens",
        "none",
        "Tokens a second that each provider reads, for callers and jobs.",
        Query(per_second(_TOKENS, "provider, source", _CHOSEN), "{{provider}} {{source}}"),
        stacked=True,
    ),
    timeseries(
        "Speed",
        "none",
        "Tokens for each second in which the provider was busy: what the plan of a job estimates with.",
        Query(
            per_second(_TOKENS, "provider", _CHOSEN)
            + " / ("
            + per_second("ray_rowbeam_provider_seconds_total", "provider", _CHOSEN)
            + " > 0)",
            "{{provider}}",
        ),
    ),
    timeseries(
        "Texts: embedded and reused",
        "none",
        "Texts a second that got a vector; reused ones took it from an equal text, for nothing.",
        Query(per_second(_TEXTS, "outcome", _CHOSEN), "{{outcome}}"),
        stacked=True,
    ),
    timeseries(
        "Texts of one batch",
        "none",
        "Half of the batches are smaller.",
        Query(
            quantile(0.5, "ray_rowbeam_encode_batch_texts", "provider, source"), "{{provider}} {{source}} p50"
        ),
        width=12,
    ),
    timeseries(
        "Time of one batch",
        "s",
        "What the local model takes for a batch.",
        Query(
            quantile(0.5, _BATCH, "provider, source"),
            "{{provider}} {{source}} p50",
        ),
        Query(
            quantile(0.99, _BATCH, "provider, source"),
            "{{provider}} {{source}} p99",
        ),
        width=12,
    ),
)

_GATEWAY_ROW: Final = (
    states(
        "Breaker",
        "Failing and refused are open: calls are answered at once, without the gateway.",
        Query("max by (state) (ray_rowbeam_gateway_circuit_state)", "{{state}}"),
        words={0: ("no", "transparent"), 1: ("yes", ORANGE)},
    ),
    timeseries(
        "Requests to the gateway",
        "reqps",
        "HTTP requests by outcome: throttled is 429, denied is the key, the quota or the model.",
        Query(per_second(f"{_GATEWAY}_count", "lane, outcome"), "{{lane}} {{outcome}}"),
        stacked=True,
    ),
    timeseries(
        "Latency of the gateway",
        "s",
        "One HTTP request that was answered.",
        Query(quantile(0.5, _GATEWAY, "lane", 'outcome="answered"'), "{{lane}} p50"),
        Query(quantile(0.99, _GATEWAY, "lane", 'outcome="answered"'), "{{lane}} p99"),
    ),
    timeseries(
        "Share of requests that failed",
        "percentunit",
        "Requests to the gateway without vectors, throttled ones left aside.",
        Query(
            share(
                per_second(f"{_GATEWAY}_count", where='outcome=~"failed|denied|refused"'),
                per_second(f"{_GATEWAY}_count"),
            ),
            "failed",
        ),
        width=12,
    ),
    timeseries(
        "Times the breaker opened",
        "none",
        "In the time shown.",
        Query(per_range("ray_rowbeam_gateway_circuit_openings_total", "state"), "{{state}}"),
        width=12,
    ),
)

_MONEY: Final = (
    timeseries(
        "Cost an hour by provider",
        "currencyUSD",
        "At the speed of the moment.",
        Query(f"3600 * {per_second(_COST, 'provider, source', _CHOSEN)}", "{{provider}} {{source}}"),
        stacked=True,
    ),
    timeseries(
        "Cost an hour by table",
        "currencyUSD",
        "At the speed of the moment; none is what belongs to no table, such as searches.",
        Query(f"3600 * {per_second(_COST, 'table', _CHOSEN)}", "{{table}}"),
        stacked=True,
    ),
    timeseries(
        "Budgets",
        "currencyUSD",
        "The budgets of all tenants together; the tenants' dashboard has each.",
        Query("max(ray_rowbeam_budget_limit_dollars)", "limit"),
        Query("max(ray_rowbeam_budget_spent_dollars)", "spent this month"),
    ),
)

DASHBOARD: Final = Dashboard(
    uid="rowbeam-providers",
    title="Rowbeam: providers and cost",
    description="What embeds, how fast, and what it costs.",
    rows=(
        ("Now", _NOW),
        ("Calls", _CALLS),
        ("Speed", _SPEED),
        ("AI gateway", _GATEWAY_ROW),
        ("Cost", _MONEY),
    ),
    variables=(DATASOURCE, labels_of("provider", "Provider", _TOKENS)),
)
