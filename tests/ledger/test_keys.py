"""API keys over their life, and tenants' limits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from ray_app.db.api_keys import MAX_ROTATION_GRACE, ApiKeys
from ray_app.db.registry import TenantRegistry
from ray_app.db.schema import api_keys, tenants
from ray_app.errors import AuthError, ConflictError, InputError, UnknownKey, UnknownTenant
from ray_app.tenants import ApiKey, Limits, Placement, Tenant
from tests.support.retired import retire


@pytest.fixture
def registry(database: Engine) -> TenantRegistry:
    return TenantRegistry(database)


@pytest.fixture
def keys(database: Engine) -> ApiKeys:
    return ApiKeys(database)


@pytest.fixture
def acme(registry: TenantRegistry) -> tuple[Tenant, ApiKey]:
    return registry.create("acme", 1, Placement.EMBEDDED)


@pytest.fixture
def opens(registry: TenantRegistry) -> Callable[[ApiKey], bool]:
    def opens_acme(key: ApiKey) -> bool:
        try:
            tenant, _ = registry.authenticate(key.text)
        except AuthError:
            return False
        return tenant.name == "acme"

    return opens_acme


def pass_time(database: Engine, key_id: str, passed: timedelta) -> None:
    """Let the time until the key's end pass, by moving the end."""
    with database.begin() as connection:
        connection.execute(
            update(api_keys)
            .where(api_keys.c.key_id == key_id)
            .values(expires_at=api_keys.c.expires_at - passed)
        )


def test_a_second_key_opens_the_same_tenant_beside_the_first(
    keys: ApiKeys, acme: tuple[Tenant, ApiKey], opens: Callable[[ApiKey], bool]
) -> None:
    tenant, first = acme
    second = keys.add(tenant)
    assert second.text != first.text
    assert opens(first)
    assert opens(second)


def test_keys_are_listed_with_their_use_and_without_what_proves_them(
    keys: ApiKeys, acme: tuple[Tenant, ApiKey], opens: Callable[[ApiKey], bool], database: Engine
) -> None:
    tenant, first = acme
    second = keys.add(tenant)
    opens(second)
    keys.revoke(tenant, first.key_id)
    listed = keys.list(tenant)
    assert [key.key_id for key in listed] == [first.key_id, second.key_id]
    assert [key.last_used_at is not None for key in listed] == [False, True]
    assert [key.revoked_at is not None for key in listed] == [True, False]
    with database.connect() as connection:
        hashes = connection.scalars(select(api_keys.c.key_hash)).all()
    shown = repr(listed)
    for secret in (first.text[12:], second.text[12:], *(repr(bytes(item)) for item in hashes)):
        assert secret not in shown


def test_a_rotated_key_works_until_its_grace_has_passed(
    keys: ApiKeys, acme: tuple[Tenant, ApiKey], opens: Callable[[ApiKey], bool], database: Engine
) -> None:
    tenant, old = acme
    rotation = keys.rotate(tenant, old.key_id)
    assert opens(old)
    assert opens(rotation.api_key)
    end = rotation.replaced.expires_at
    assert end is not None
    assert abs(end - datetime.now(UTC) - timedelta(hours=24)) < timedelta(minutes=5)
    pass_time(database, old.key_id, timedelta(hours=23))
    assert opens(old)
    pass_time(database, old.key_id, timedelta(hours=1))
    assert not opens(old)
    assert opens(rotation.api_key)


def test_a_rotation_without_grace_refuses_the_old_key_at_once(
    keys: ApiKeys, acme: tuple[Tenant, ApiKey], opens: Callable[[ApiKey], bool]
) -> None:
    tenant, old = acme
    rotation = keys.rotate(tenant, old.key_id, grace=timedelta(0))
    assert not opens(old)
    assert opens(rotation.api_key)


def test_a_second_rotation_does_not_lengthen_an_old_keys_life(
    keys: ApiKeys, acme: tuple[Tenant, ApiKey]
) -> None:
    tenant, old = acme
    first = keys.rotate(tenant, old.key_id, grace=timedelta(minutes=5)).replaced.expires_at
    again = keys.rotate(tenant, old.key_id, grace=timedelta(days=1)).replaced.expires_at
    sooner = keys.rotate(tenant, old.key_id, grace=timedelta(minutes=1)).replaced.expires_at
    assert first is not None
    assert sooner is not None
    assert again == first > sooner


def test_a_key_that_works_no_more_cannot_be_rotated(keys: ApiKeys, acme: tuple[Tenant, ApiKey]) -> None:
    tenant, first = acme
    second = keys.rotate(tenant, first.key_id, grace=timedelta(0)).api_key
    keys.revoke(tenant, second.key_id)
    for key in (first, second):
        with pytest.raises(ConflictError, match="does not work"):
            keys.rotate(tenant, key.key_id)
    assert len(keys.list(tenant)) == 2, "a refused rotation makes no key"


@pytest.mark.parametrize("grace", [timedelta(seconds=-1), MAX_ROTATION_GRACE + timedelta(seconds=1)])
def test_a_grace_out_of_range_is_refused(
    keys: ApiKeys, acme: tuple[Tenant, ApiKey], grace: timedelta
) -> None:
    with pytest.raises(InputError, match="grace"):
        keys.rotate(acme[0], acme[1].key_id, grace=grace)


def test_a_revoked_key_is_refused_at_once_even_the_last(
    keys: ApiKeys, acme: tuple[Tenant, ApiKey], opens: Callable[[ApiKey], bool]
) -> None:
    tenant, first = acme
    second = keys.add(tenant)
    revocation = keys.revoke(tenant, first.key_id)
    assert (revocation.key.key_id, revocation.usable_left) == (first.key_id, 1)
    assert not opens(first)
    assert opens(second)
    assert keys.revoke(tenant, second.key_id).usable_left == 0
    assert not opens(second)
    assert opens(keys.add(tenant)), "a tenant without keys can be given one"
    again = keys.revoke(tenant, first.key_id)
    assert (again.key, again.usable_left) == (revocation.key, 1), "and again changes nothing"


def test_a_key_can_be_changed_under_its_own_tenant_only(
    registry: TenantRegistry,
    keys: ApiKeys,
    acme: tuple[Tenant, ApiKey],
    opens: Callable[[ApiKey], bool],
) -> None:
    globex, _ = registry.create("globex", 2, Placement.EMBEDDED)
    for change in (keys.rotate, keys.revoke):
        with pytest.raises(UnknownKey):
            change(globex, acme[1].key_id)
        for nothing in ("nothing", "", "\x00", "\ud800", "0" * 8):
            with pytest.raises(UnknownKey):
                change(acme[0], nothing)
    assert opens(acme[1])
    assert len(keys.list(globex)) == 1


def test_a_removed_tenant_gets_no_key(
    database: Engine, keys: ApiKeys, acme: tuple[Tenant, ApiKey], opens: Callable[[ApiKey], bool]
) -> None:
    tenant, key = acme
    retire(database, tenant)
    for change in (keys.add, lambda owner: keys.rotate(owner, key.key_id)):
        with pytest.raises(UnknownTenant):
            change(tenant)
    assert [item.revoked_at is not None for item in keys.list(tenant)] == [True]
    assert not opens(key)


def stored_limits(database: Engine) -> dict[str, Any]:
    with database.connect() as connection:
        return dict(connection.scalars(select(tenants.c.limits)).one())


def test_limits_change_one_by_one_and_only_what_differs_is_kept(
    registry: TenantRegistry, acme: tuple[Tenant, ApiKey], database: Engine
) -> None:
    assert acme[0].limits == Limits()
    registry.set_limits("acme", {"requests_per_minute": 5, "monthly_cost": Decimal("12.34")})
    changed = registry.set_limits("acme", {"concurrent_requests": 2})
    assert changed.limits == Limits(5, Limits().tokens_per_minute, 2, Decimal("12.34"))
    assert registry.get("acme") == changed
    assert stored_limits(database) == {
        "requests_per_minute": 5,
        "concurrent_requests": 2,
        "monthly_cost": "12.34",
    }

    restored = registry.set_limits(
        "acme", {"requests_per_minute": None, "monthly_cost": None, "concurrent_requests": 64}
    )
    assert restored.limits == Limits()
    assert stored_limits(database) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"requests_per_minute": 0},
        {"tokens_per_minute": 10**10},
        {"concurrent_requests": -1},
        {"monthly_cost": Decimal("-0.01")},
        {"monthly_cost": Decimal("NaN")},
        {"monthly_cost": Decimal("Infinity")},
        {"requests_per_hour": 5},
    ],
)
def test_a_limit_that_cannot_be_is_refused_and_nothing_changes(
    registry: TenantRegistry, acme: tuple[Tenant, ApiKey], database: Engine, changes: dict[str, Any]
) -> None:
    registry.set_limits("acme", {"tokens_per_minute": 7})
    with pytest.raises(InputError):
        registry.set_limits("acme", {"concurrent_requests": 3, **changes})
    assert stored_limits(database) == {"tokens_per_minute": 7}


def test_limits_of_nobody_cannot_be_set(
    registry: TenantRegistry, acme: tuple[Tenant, ApiKey], database: Engine
) -> None:
    retire(database, acme[0])
    for name in ("acme", "nobody", "no\x00body"):
        with pytest.raises(UnknownTenant):
            registry.set_limits(name, {"concurrent_requests": 3})
