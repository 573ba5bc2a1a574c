"""Keys: whose is whose, what each may do, and when a revoked one stops working."""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from ray_app.api.authentication import KEY_TTL, Admin, Authenticator, Principal
from ray_app.api.principals import FromAdmin
from ray_app.errors import AuthError
from ray_app.settings import Settings
from ray_app.stack.admin_key import admin_key_path, ensure_admin_key
from tests.support.api_site import ADMIN_KEY, ApiSite


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def status(site: ApiSite, path: str = "/v1/models", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(f"{site.url}{path}", headers=named).status_code


def revoke(site: ApiSite, key: str) -> None:
    """As another server would, without a word to this one."""
    with site.workspace.ledger.begin() as connection:
        connection.execute(
            text("UPDATE rowbeam.api_keys SET revoked_at = now() WHERE key_id = :id"),
            {"id": key.split("_")[1]},
        )


def test_a_key_is_taken_from_either_header(site: ApiSite, key: str) -> None:
    assert status(site, authorization=f"Bearer {key}") == 200
    assert status(site, authorization=f"bearer  {key}") == 200
    assert status(site, api_key=key) == 200


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Basic dXNlcjpwYXNz",
        "Bearer rb_00000000_wrong",
        "Bearer rb__",
        "Bearer rb_%27%3B--_x",
        "Bearer two words",
        "Bearer " + "x" * 5000,
    ],
)
def test_no_key_or_a_wrong_one_is_401_with_a_challenge(site: ApiSite, key: str, value: str) -> None:
    for path in ("/v1/models", "/v1/nothing", "/v1"):
        response = httpx.get(f"{site.url}{path}", headers={"authorization": value})
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"


def test_a_key_that_is_nearly_right_is_wrong(site: ApiSite, key: str) -> None:
    changed = key[:-1] + ("a" if key[-1] != "a" else "b")
    for wrong in (changed, key + "a", key[:-1], key.upper(), ADMIN_KEY[:-1], ADMIN_KEY + "x"):
        assert status(site, authorization=f"Bearer {wrong}") == 401


def test_bytes_that_are_no_key_are_401(site: ApiSite) -> None:
    headers = [(b"authorization", b"Bearer rb_caf\xe9_x")]
    assert httpx.get(f"{site.url}/v1/models", headers=headers).status_code == 401


def test_the_key_is_checked_before_the_body_is_sent(site: ApiSite) -> None:
    address = urlsplit(site.url)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=10) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")


async def manage(_caller: FromAdmin) -> str:
    return "managed"


def test_a_tenants_key_opens_no_admin_route_and_the_admins_no_tenants(site: ApiSite, key: str) -> None:
    site.app.add_api_route("/v1/manage", manage)
    assert status(site, "/v1/manage", authorization=f"Bearer {site.admin_key}") == 200
    assert status(site, "/v1/manage", authorization=f"Bearer {key}") == 403
    assert status(site, "/v1/models", authorization=f"Bearer {site.admin_key}") == 403
    assert status(site, "/v1/manage") == 401


def test_health_and_documents_need_no_key(site: ApiSite) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs"):
        assert status(site, path) == 200


def test_a_key_revoked_elsewhere_works_no_longer_than_it_is_remembered(site: ApiSite, key: str) -> None:
    clock = Clock()
    authenticator = Authenticator(site.workspace.registry, SecretStr(ADMIN_KEY), clock=clock)
    first = authenticator.authenticate(key)
    revoke(site, key)
    clock.now += KEY_TTL * 0.9
    assert authenticator.authenticate(key) == first
    clock.now += KEY_TTL * 0.2
    with pytest.raises(AuthError):
        authenticator.authenticate(key)


def test_a_key_revoked_here_stops_at_once(site: ApiSite, key: str) -> None:
    assert status(site, authorization=f"Bearer {key}") == 200
    revoke(site, key)
    site.services.authenticator.forget()
    assert status(site, authorization=f"Bearer {key}") == 401


def test_a_key_revoked_while_it_is_looked_up_is_not_remembered(site: ApiSite, key: str) -> None:
    class Slow:
        def authenticate(self, text: str) -> object:
            found = site.workspace.registry.authenticate(text)
            authenticator.forget()
            return found

    authenticator = Authenticator(Slow(), SecretStr(ADMIN_KEY))  # type: ignore[arg-type]
    assert isinstance(authenticator.authenticate(key), Principal)
    assert authenticator.recall(key) is None


def test_a_refusal_is_not_remembered(site: ApiSite, key: str) -> None:
    revoke(site, key)
    assert status(site, authorization=f"Bearer {key}") == 401
    with site.workspace.ledger.begin() as connection:
        connection.execute(text("UPDATE rowbeam.api_keys SET revoked_at = NULL"))
    assert status(site, authorization=f"Bearer {key}") == 200


def test_a_key_in_use_is_looked_up_now_and_then_and_its_use_recorded(site: ApiSite, key: str) -> None:
    clock = Clock()
    authenticator = Authenticator(site.workspace.registry, SecretStr(ADMIN_KEY), clock=clock)

    def last_used() -> datetime | None:
        with site.workspace.ledger.connect() as connection:
            used: datetime | None = connection.scalar(text("SELECT last_used_at FROM rowbeam.api_keys"))
            return used

    assert last_used() is None
    authenticator.authenticate(key)
    first = last_used()
    assert first is not None
    assert abs((datetime.now(UTC) - first).total_seconds()) < 60
    authenticator.authenticate(key)
    assert last_used() == first
    clock.now += KEY_TTL * 1.1
    authenticator.authenticate(key)
    assert last_used() > first


def test_the_principal_is_the_tenant_of_the_key(site: ApiSite, key: str) -> None:
    other = site.add_tenant("acme-2")
    for name, text_ in (("acme", key), ("acme-2", other)):
        principal = site.services.authenticator.authenticate(text_)
        assert isinstance(principal, Principal)
        assert principal.tenant == site.tenant(name)
        assert principal.scope.incarnation == principal.tenant.incarnation
        assert text_ not in repr(site.services.authenticator.__dict__)
    assert isinstance(site.services.authenticator.authenticate(ADMIN_KEY), Admin)


def test_the_admin_key_is_made_once_for_its_owner_alone(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    key = ensure_admin_key(settings).get_secret_value()
    assert len(key) > 40
    assert ensure_admin_key(settings).get_secret_value() == key
    assert stat.S_IMODE(admin_key_path(settings).stat().st_mode) == 0o600
    assert stat.S_IMODE(admin_key_path(settings).parent.stat().st_mode) == 0o700
    configured = make_settings(admin_key="configured-admin-key")
    assert ensure_admin_key(configured).get_secret_value() == "configured-admin-key"
