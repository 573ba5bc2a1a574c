"""The commands about keys, limits and usage, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ray_app.db import usage
from ray_app.db.registry import TenantRegistry
from ray_app.errors import AuthError

ROWBEAM = Path(sys.executable).with_name("rowbeam")
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def rowbeam(tmp_path: Path, database_url: str) -> Run:
    environment = {
        **os.environ,
        "ROWBEAM_HOME": str(tmp_path / "home"),
        "ROWBEAM_DATABASE_URL": database_url,
        "ROWBEAM_LOCAL_MODEL": "stub",
    }

    def run(*arguments: str, code: int = 0) -> dict[str, Any]:
        done = subprocess.run(
            [ROWBEAM, *arguments, "--json"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr
        value = json.loads(done.stdout)
        assert isinstance(value, dict)
        return value

    return run


@pytest.fixture
def registry(database: Engine) -> TenantRegistry:
    return TenantRegistry(database)


def opens(registry: TenantRegistry, key: str) -> bool:
    try:
        registry.authenticate(key)
    except AuthError:
        return False
    return True


def test_the_life_of_keys(rowbeam: Run, registry: TenantRegistry) -> None:
    first = rowbeam("tenant", "add", "acme")["api_key"]
    second = rowbeam("tenant", "key", "add", "acme")
    assert opens(registry, second["text"])
    rotated = rowbeam("tenant", "key", "rotate", "acme", first["key_id"], "--grace", "0")
    assert rotated["replaced"]["key_id"] == first["key_id"]
    assert not opens(registry, first["text"])
    assert opens(registry, rotated["api_key"]["text"])
    assert rowbeam("tenant", "key", "revoke", "acme", second["key_id"])["usable_left"] == 1
    assert not opens(registry, second["text"])

    listed = rowbeam("tenant", "key", "list", "acme")["keys"]
    assert [key["key_id"] for key in listed] == [
        first["key_id"],
        second["key_id"],
        rotated["api_key"]["key_id"],
    ]
    assert [(bool(key["expires_at"]), bool(key["revoked_at"])) for key in listed] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    told = rowbeam("tenant", "key", "rotate", "acme", first["key_id"], code=1)["error"]
    assert told["type"] == "ConflictError"
    assert rowbeam("tenant", "key", "revoke", "acme", "nothing", code=1)["error"]["type"] == "UnknownKey"


def test_limits_are_shown_and_changed(rowbeam: Run, registry: TenantRegistry) -> None:
    rowbeam("tenant", "add", "acme")
    assert rowbeam("tenant", "limits", "acme")["limits"]["monthly_cost"] is None
    changed = rowbeam("tenant", "limits", "acme", "--requests-per-minute", "5", "--monthly-cost", "1.5")
    assert (changed["limits"]["requests_per_minute"], changed["limits"]["monthly_cost"]) == (5, 1.5)
    assert registry.get("acme").limits.monthly_cost == Decimal("1.5")
    rowbeam("tenant", "limits", "acme", "--monthly-cost", "default")
    assert registry.get("acme").limits.monthly_cost is None
    assert registry.get("acme").limits.requests_per_minute == 5
    assert rowbeam("tenant", "limits", "acme", "--concurrent-requests", "0", code=1)["error"]["type"] == (
        "InputError"
    )


def test_usage_of_this_month_and_of_days_in_the_past(
    rowbeam: Run, registry: TenantRegistry, database: Engine
) -> None:
    rowbeam("tenant", "add", "acme")
    with database.begin() as connection:
        usage.add_online(
            connection,
            incarnation=registry.get("acme").incarnation,
            provider="gateway",
            model="m",
            table="issues",
            texts=2,
            tokens=30,
            cost=Decimal("0.000000001"),
            seconds=0.1,
        )
    shown = rowbeam("usage", "--tenant", "acme")
    assert (shown["texts"], shown["tokens"], shown["cost"]) == (2, 30, "0.000000001")
    assert shown["first"] == datetime.now(UTC).date().replace(day=1).isoformat()
    past = rowbeam("usage", "--tenant", "acme", "--from", "2020-01-01", "--to", "2020-02-01")
    assert (past["rows"], past["cost"]) == ([], "0")
