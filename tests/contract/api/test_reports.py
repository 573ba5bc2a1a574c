"""Coverage and usage over HTTP: of the caller's tenant, complete, and exact."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, text

from ray_app.db.schema import usage
from ray_app.serving.usage_log import UsageKey
from tests.support.api_site import ApiSite


def spend(site: ApiSite, tenant: str, day: date, cost: str, **values: Any) -> None:
    row = {"provider": "gateway", "model": "m", "table_name": "issues", "job_id": "", "texts": 1, "tokens": 5}
    with site.workspace.ledger.begin() as connection:
        connection.execute(
            insert(usage).values(
                {
                    **row,
                    "incarnation": site.tenant(tenant).incarnation,
                    "day": day,
                    "cost": Decimal(cost),
                    **values,
                }
            )
        )


def test_usage_is_told_apart_added_up_and_exact(site: ApiSite, http: httpx.Client) -> None:
    day = date(2026, 2, 3)
    spend(site, "acme", day, "0.000000001")
    spend(site, "acme", day, "0.000000002", job_id="job-1")
    spend(site, "acme", day, "0", provider="local-cpu", table_name="")
    spend(site, "acme", day + timedelta(days=1), "1.5")
    site.add_tenant("globex")
    spend(site, "globex", day, "999")

    answer = http.get("/v1/usage", params={"from": "2026-02-03", "to": "2026-02-03"})

    assert answer.status_code == 200
    common = {"day": "2026-02-03", "model": "m"}
    assert answer.json() == {
        "from": "2026-02-03",
        "to": "2026-02-03",
        "texts": 3,
        "tokens": 15,
        "cost": "0.000000003",
        "rows": [
            {
                **common,
                "provider": "gateway",
                "table": "issues",
                "texts": 2,
                "tokens": 10,
                "cost": "0.000000003",
            },
            {
                **common,
                "provider": "local-cpu",
                "table": "",
                "texts": 1,
                "tokens": 5,
                "cost": "0.000000000",
            },
        ],
    }


def test_this_month_is_reported_unless_told_and_what_is_in_memory_counts(
    site: ApiSite, http: httpx.Client
) -> None:
    today = datetime.now(UTC).date()
    key = UsageKey(site.tenant("acme").incarnation, "gateway", "m", "issues")
    site.services.usage.add(key, texts=2, tokens=7, cost=Decimal("0.25"))
    shown = http.get("/v1/usage").json()
    assert (shown["from"], shown["to"]) == (str(today.replace(day=1)), str(today))
    assert (shown["texts"], shown["tokens"], Decimal(shown["cost"])) == (2, 7, Decimal("0.25"))
    february = http.get("/v1/usage", params={"to": "2026-02-03"}).json()
    assert (february["from"], february["rows"], february["cost"]) == ("2026-02-01", [], "0")


@pytest.mark.parametrize(
    "params",
    [
        {"from": "2026-02-03", "to": "2026-02-02"},
        {"from": "2020-01-01", "to": "2026-01-01"},
        {"from": "yesterday"},
        {"to": "2026-02-30"},
        {"from": "0001-01-01", "to": "9999-12-31"},
        {"from": "9999-12-31"},
    ],
)
def test_days_that_cannot_be_are_refused(http: httpx.Client, params: dict[str, str]) -> None:
    answer = http.get("/v1/usage", params=params)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_coverage_is_of_the_callers_rows_only(site: ApiSite, http: httpx.Client) -> None:
    with site.http(site.add_tenant("globex")) as other:
        with site.workspace.source.begin() as connection:
            for number, (name, count) in enumerate((("acme", 3), ("globex", 5))):
                connection.execute(
                    text(
                        "INSERT INTO pull_requests (id, client_id, title) SELECT n, :client, 'row ' || n"
                        " FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS n"
                    ),
                    {
                        "client": site.tenant(name).client_id,
                        "first": 100 * number,
                        "last": 100 * number + count - 1,
                    },
                )
        for client, count in ((http, 3), (other, 5)):
            rows = client.get("/v1/coverage").json()["coverage"]
            (row,) = (row for row in rows if row["table"] == "pull_requests")
            assert (row["rows"], row["embedded"], row["points"]) == (count, 0, 0)
            assert row["space_id"] is None
            assert sum(row["rows"] for row in rows) == count


def test_reports_count_against_the_tenants_limits(site: ApiSite) -> None:
    with site.http(site.add_tenant("acme", requests_per_minute=1)) as http:
        statuses = {http.get(path).status_code for path in ("/v1/usage", "/v1/coverage") for _ in range(3)}
    assert statuses == {200, 429}


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/coverage"])
def test_the_admin_key_reads_no_tenants_reports(admin: httpx.Client, path: str) -> None:
    assert admin.get(path).status_code == 403
