from __future__ import annotations

import pytest
from sqlalchemy import Engine, select

from ray_app.db.fences import lock_active
from ray_app.db.registry import TenantRegistry
from ray_app.db.schema import api_keys
from ray_app.errors import AuthError, InputError, TenantExists, UnknownTenant
from ray_app.tenants import Placement
from tests.support.retired import retire


@pytest.fixture
def registry(database: Engine) -> TenantRegistry:
    return TenantRegistry(database)


def test_a_key_opens_its_own_tenant_only(registry: TenantRegistry) -> None:
    acme, acme_key = registry.create("acme", 1, Placement.EMBEDDED)
    _, globex_key = registry.create("globex", 2, Placement.EMBEDDED)

    tenant, scope = registry.authenticate(acme_key.text)
    other, other_scope = registry.authenticate(globex_key.text)

    assert tenant == acme
    assert scope.incarnation == acme.incarnation
    assert other.name == "globex"
    assert other_scope.incarnation != scope.incarnation
    assert other_scope.secret == scope.secret


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key[:-1] + ("A" if key[-1] != "A" else "B"),
        lambda key: key.replace("rb_", "rb_0"),
        lambda key: "",
        lambda key: "rb__",
        lambda key: key.split("_")[1],
    ],
)
def test_a_wrong_key_is_refused_without_saying_why(registry: TenantRegistry, spoil) -> None:  # type: ignore[no-untyped-def]
    _, key = registry.create("acme", 1, Placement.EMBEDDED)
    with pytest.raises(AuthError) as refusal:
        registry.authenticate(spoil(key.text))
    assert key.key_id not in str(refusal.value)


def test_only_the_hash_of_a_key_is_stored_and_its_use_recorded(
    registry: TenantRegistry, database: Engine
) -> None:
    _, key = registry.create("acme", 1, Placement.EMBEDDED)
    registry.authenticate(key.text)
    with database.connect() as connection:
        row = connection.execute(select(api_keys)).one()
    assert key.text.encode() not in bytes(row.key_hash)
    assert row.last_used_at is not None
    assert key.text not in repr(key)


def test_name_and_client_id_are_taken_while_the_tenant_lives(registry: TenantRegistry) -> None:
    registry.create("acme", 1, Placement.EMBEDDED)
    with pytest.raises(TenantExists, match="name 'acme'"):
        registry.create("acme", 2, Placement.EMBEDDED)
    with pytest.raises(TenantExists, match="client id 1"):
        registry.create("globex", 1, Placement.EMBEDDED)


@pytest.mark.parametrize("name", ["", "Acme", "a b", "../x", "a" * 64, "acme-", "-acme", "é"])
def test_a_name_that_could_confuse_is_refused(registry: TenantRegistry, name: str) -> None:
    with pytest.raises(InputError):
        registry.create(name, 1, Placement.EMBEDDED)


def test_a_retired_tenant_has_no_scope_no_key_and_no_writers(
    registry: TenantRegistry, database: Engine
) -> None:
    tenant, key = registry.create("acme", 1, Placement.EMBEDDED)
    retire(database, tenant)
    with pytest.raises(UnknownTenant):
        registry.scope(tenant)
    with pytest.raises(AuthError):
        registry.authenticate(key.text)
    with pytest.raises(UnknownTenant), database.begin() as connection:
        lock_active(connection, tenant.incarnation)


def test_a_tenant_created_again_is_another(registry: TenantRegistry, database: Engine) -> None:
    from sqlalchemy import update

    from ray_app.db.schema import tenants

    first, first_key = registry.create("acme", 1, Placement.EMBEDDED)
    retire(database, first)
    with database.begin() as connection:
        connection.execute(update(tenants).values(state="deleted"))
    second, _ = registry.create("acme", 1, Placement.EMBEDDED)
    assert second.incarnation != first.incarnation
    with pytest.raises(UnknownTenant, match="created again"):
        registry.scope(first)
    with pytest.raises(AuthError):
        registry.authenticate(first_key.text)
