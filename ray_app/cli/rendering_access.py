"""Keys, limits and usage as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.text import Text

from ray_app.cli.layout import add_row, facts_of, table_of, when
from ray_app.cli.output import plain
from ray_app.reports import KeyInfo, Revocation, Rotation, UsageReport
from ray_app.tenants import ApiKey, Limits, Tenant
from ray_app.wording import money


def new_key(key: ApiKey) -> RenderableType:
    return Text.assemble("API key, shown this once: ", (key.text, "bold"))


def keys(found: Sequence[KeyInfo]) -> RenderableType:
    table = table_of("key", "made", "last used", "state")
    for key in found:
        used = "never" if key.last_used_at is None else when(key.last_used_at)
        add_row(table, key.key_id, when(key.created_at), used, _state(key))
    return table


def rotation(done: Rotation) -> RenderableType:
    return Group(new_key(done.api_key), Text(f"The old key {done.replaced.key_id}: {_state(done.replaced)}."))


def revocation(done: Revocation) -> RenderableType:
    line = Text(f"The key {done.key.key_id} is {_state(done.key)}.")
    if done.usable_left:
        return line
    return Group(
        line,
        Text("It was the last: nobody can call for this tenant until a key is added.", style="yellow"),
    )


def limits(tenant: Tenant) -> RenderableType:
    allowed = tenant.limits
    return facts_of(
        ("tenant", tenant.name),
        ("requests a minute", f"{allowed.requests_per_minute:,}"),
        ("tokens a minute", f"{allowed.tokens_per_minute:,}"),
        ("requests at once", f"{allowed.concurrent_requests:,}"),
        ("cost a month", "no limit" if allowed.monthly_cost is None else money(allowed.monthly_cost)),
    )


def describe_limits(allowed: Limits) -> str:
    cost = "" if allowed.monthly_cost is None else f", {money(allowed.monthly_cost)} a month"
    return (
        f"{allowed.requests_per_minute:,} requests and {allowed.tokens_per_minute:,} tokens a minute, "
        f"{allowed.concurrent_requests:,} requests at once{cost}"
    )


def usage(report: UsageReport) -> RenderableType:
    total = Text(
        f"{report.tenant}, {report.first} to {report.last}: {report.texts:,} texts, "
        f"{report.tokens:,} tokens, {money(report.cost)}."
    )
    if not report.rows:
        return total
    table = table_of("day", "provider", "model", "table", "texts>", "tokens>", "cost>")
    for row in report.rows:
        add_row(
            table,
            *(str(row.day), row.provider, plain(row.model.rpartition("/")[2]), row.table or "none"),
            *(f"{row.texts:,}", f"{row.tokens:,}", money(row.cost)),
        )
    return Group(table, total)


def _state(key: KeyInfo) -> str:
    if key.revoked_at is not None:
        return f"revoked, {when(key.revoked_at)}"
    if key.expires_at is None:
        return "works"
    verb = "works until" if key.expires_at > datetime.now(UTC) else "expired"
    return f"{verb} {when(key.expires_at)}"
