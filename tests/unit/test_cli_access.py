"""What the commands about keys, limits and usage show."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from rich.console import Console, RenderableType

from ray_app.cli import rendering_access
from ray_app.cli.app import run
from ray_app.reports import KeyInfo, Revocation, Rotation, UsageReport, UsageRow
from ray_app.tenants import ApiKey, Limits, Placement, Tenant, TenantState

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LIMITS = Limits(1_500, 20_000, 3, Decimal("12.5"))
TENANT = Tenant(UUID(int=7), "acme", 3, Placement.EMBEDDED, TenantState.ACTIVE, NOON, LIMITS)
KEY = KeyInfo("k1", NOON, None, None, None)
DAY = date(2026, 11, 23)
USAGE = UsageReport(
    "acme",
    DAY,
    DAY,
    (
        UsageRow(DAY, "gateway", "org/model", "issues", 1_200, 30_000, Decimal("0.000000003")),
        UsageRow(DAY, "local-cpu", "mini", "", 1, 5, Decimal(0)),
    ),
)


def text_of(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


@pytest.mark.parametrize(
    ("renderable", "expected"),
    [
        (rendering_access.new_key(ApiKey("k1", "rb_k1_secret")), ["shown this once: rb_k1_secret"]),
        (rendering_access.keys([KEY]), ["k1", "never", "works"]),
        (rendering_access.keys([replace(KEY, expires_at=NOON)]), ["expired 2026-11-23"]),
        (
            rendering_access.keys([replace(KEY, expires_at=datetime.now(UTC) + timedelta(days=1))]),
            ["works until"],
        ),
        (rendering_access.keys([replace(KEY, expires_at=NOON, revoked_at=NOON)]), ["revoked, 2026-11-23"]),
        (
            rendering_access.rotation(Rotation(ApiKey("k2", "rb_k2_x"), replace(KEY, expires_at=NOON))),
            ["rb_k2_x", "The old key k1: expired"],
        ),
        (
            rendering_access.revocation(Revocation(replace(KEY, revoked_at=NOON), 0)),
            ["k1 is revoked", "It was the last"],
        ),
        (rendering_access.limits(TENANT), ["1,500", "20,000", "3", "$12.50"]),
        (rendering_access.limits(replace(TENANT, limits=Limits())), ["no limit"]),
        (rendering_access.usage(USAGE), ["1,200", "gateway", "model", "none", "1,201 texts, 30,005 tokens"]),
    ],
)
def test_results_say_what_matters(renderable: RenderableType, expected: list[str]) -> None:
    shown = text_of(renderable)
    for part in expected:
        assert part in shown


def test_that_a_key_was_the_last_is_said_only_when_it_was() -> None:
    assert "last" not in text_of(rendering_access.revocation(Revocation(replace(KEY, revoked_at=NOON), 1)))


def test_usage_as_json_keeps_every_place_of_a_cost() -> None:
    data = json.loads(json.dumps(USAGE.to_json()))
    assert data["cost"] == "0.000000003"
    assert data["rows"][0] == {
        "day": "2026-11-23",
        "provider": "gateway",
        "model": "org/model",
        "table": "issues",
        "texts": 1200,
        "tokens": 30000,
        "cost": "0.000000003",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["tenant", "limits", "acme", "--requests-per-minute", "many"], 1, "InputError"),
        (["tenant", "limits", "acme", "--monthly-cost", "1,5"], 1, "InputError"),
        (["tenant", "key", "rotate", "acme", "k1", "--grace", "inf"], 1, "InputError"),
        (["tenant", "key", "rotate", "acme", "k1", "--grace", "nan"], 2, "UsageError"),
        (["tenant", "key", "rotate", "acme", "k1", "--grace", "-1"], 2, "UsageError"),
        (["tenant", "key", "revoke", "acme"], 2, "UsageError"),
        (["usage", "--tenant", "acme", "--from", "yesterday"], 2, "UsageError"),
    ],
)
def test_what_is_no_number_and_no_day_is_refused_before_anything_is_started(
    arguments: list[str], code: int, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["error"]["type"] == kind
