"""Each tenant, from the ledger in Postgres: metrics never name one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from monitoring.dashboards.panels import Dashboard, sql_over_time, table
from monitoring.dashboards.variables import rows_of

_SQL: Final = Path(__file__).with_name("sql")


def _query(name: str) -> str:
    return (_SQL / f"{name}.sql").read_text(encoding="utf-8")


DASHBOARD: Final = Dashboard(
    uid="rowbeam-tenants",
    title="Rowbeam: tenants",
    description=(
        "Each tenant, from the ledger in Postgres. Counting points reads the whole index, about a second "
        "for a million of them, so this dashboard renews itself only when asked."
    ),
    rows=(
        (
            "Tenants",
            (
                table(
                    "Overview",
                    "What each tenant has, waits for and spends. A month is a calendar month (UTC).",
                    _query("overview"),
                    units={
                        "client_id": "none",
                        "spent this month": "currencyUSD",
                        "budget": "currencyUSD",
                        "of budget": "percentunit",
                    },
                ),
            ),
        ),
        (
            "Usage",
            (
                sql_over_time(
                    "Cost by day",
                    "currencyUSD",
                    "What providers charged.",
                    _query("cost_by_day"),
                ),
                sql_over_time(
                    "Tokens by day",
                    "short",
                    "Tokens that providers read, a local model's too.",
                    _query("tokens_by_day"),
                ),
            ),
        ),
        (
            "Indexes and work",
            (
                table(
                    "Indexes",
                    "What is embedded of each table; rowbeam coverage compares it with the rows.",
                    _query("indexes"),
                ),
                table(
                    "Jobs",
                    "The latest fifty of the time shown.",
                    _query("jobs"),
                    units={"duration": "s", "cost": "currencyUSD"},
                ),
                table(
                    "Open dead letters",
                    "Records that could not be embedded, by reason.",
                    _query("dead_letters"),
                ),
            ),
        ),
    ),
    variables=(
        rows_of(
            "tenant", "Tenant", "SELECT name FROM rowbeam.tenants WHERE state <> 'deleted' ORDER BY name"
        ),
    ),
    since="now-30d",
    refresh="",
)
