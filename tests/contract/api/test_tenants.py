"""The operator's routes: tenants, keys and limits, and who may use them."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from ray_app.db import jobs
from ray_app.db.jobs import JobRequest
from ray_app.db.schema import usage
from ray_app.offboarding.records import canonical, verify
from ray_app.tenants import Limits
from tests.support.api_site import ApiSite


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error, dict)
    return error


@pytest.fixture
def calls_as(site: ApiSite) -> Iterator[Callable[[str], int]]:
    """The status that a tenant's route answers a key with."""
    with site.http() as client:
        yield lambda key: client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/tenants"),
        ("GET", "/v1/tenants"),
        ("GET", "/v1/tenants/acme"),
        ("DELETE", "/v1/tenants/acme"),
        ("PATCH", "/v1/tenants/acme/limits"),
        ("POST", "/v1/tenants/acme/keys"),
        ("GET", "/v1/tenants/acme/keys"),
        ("POST", "/v1/tenants/acme/keys/00000000/rotate"),
        ("DELETE", "/v1/tenants/acme/keys/00000000"),
    ],
)
def test_only_the_admin_key_manages_tenants(
    site: ApiSite, http: httpx.Client, method: str, path: str
) -> None:
    error_of(http.request(method, path, json={}), 403)
    with site.http() as nobody:
        error_of(nobody.request(method, path, json={}), 401)
    assert site.tenant("acme").limits == Limits()


def test_a_tenant_is_made_proven_and_its_key_shown_once(
    admin: httpx.Client, calls_as: Callable[[str], int]
) -> None:
    made = admin.post("/v1/tenants", json={"name": "acme", "client_id": 7})
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/tenants/acme"
    body = made.json()
    assert (body["tenant"]["name"], body["tenant"]["client_id"]) == ("acme", 7)
    assert body["tenant"]["placement"] == "embedded"
    assert min(body["probe"][name] for name in ("write_ms", "search_ms", "delete_ms")) >= 0
    key = body["key"]["api_key"]
    assert re.fullmatch(r"rb_[0-9a-f]{8}_[\w-]{43}", key)
    assert calls_as(key) == 200
    for path in ("/v1/tenants", "/v1/tenants/acme", "/v1/tenants/acme/keys"):
        shown = admin.get(path)
        assert shown.status_code == 200
        assert key[12:] not in shown.text
        assert "hash" not in shown.text
    assert [tenant["name"] for tenant in admin.get("/v1/tenants").json()["tenants"]] == ["acme"]


def test_a_name_and_a_client_id_are_free_once(admin: httpx.Client) -> None:
    assert admin.post("/v1/tenants", json={"name": "acme", "client_id": 7}).status_code == 201
    for taken in ({"name": "acme"}, {"name": "globex", "client_id": 7}):
        assert error_of(admin.post("/v1/tenants", json=taken), 409)["code"] == "tenant_exists"
    assert len(admin.get("/v1/tenants").json()["tenants"]) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "Not a name"}, "name"),
        ({"name": "acme\n"}, "name"),
        ({"name": "a" * 64}, "name"),
        ({"name": "acme", "client_id": -1}, "client_id"),
        ({"name": "acme", "client_id": 2**63}, "client_id"),
        ({"name": "acme", "client_id": "7"}, "client_id"),
        ({"name": "acme", "placement": "somewhere"}, "placement"),
        ({"name": "acme", "placement": "pooled"}, "placement"),
        ({"name": "acme", "incarnation": "0"}, "incarnation"),
    ],
)
def test_what_cannot_be_a_tenant_is_refused_by_name(
    admin: httpx.Client, body: dict[str, Any], param: str
) -> None:
    assert error_of(admin.post("/v1/tenants", json=body), 400)["param"] == param
    assert admin.get("/v1/tenants").json() == {"tenants": []}


@pytest.mark.parametrize("name", ["nobody", "Not%20a%20name", "%00", "%ED%A0%80", "a" * 300])
def test_a_name_that_is_nobodys_is_404_everywhere(admin: httpx.Client, name: str) -> None:
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("PATCH", "/limits"),
        ("GET", "/keys"),
        ("POST", "/keys"),
        ("POST", "/keys/00000000/rotate"),
        ("DELETE", "/keys/00000000"),
    ):
        answer = admin.request(method, f"/v1/tenants/{name}{path}", json={})
        assert error_of(answer, 404)["code"] == "tenant_not_found", (method, path)


def test_a_second_key_and_its_revocation(
    admin: httpx.Client, key: str, calls_as: Callable[[str], int]
) -> None:
    added = admin.post("/v1/tenants/acme/keys")
    assert added.status_code == 201
    second = added.json()
    assert (calls_as(key), calls_as(second["api_key"])) == (200, 200)

    revoked = admin.delete(f"/v1/tenants/acme/keys/{second['key_id']}")
    assert revoked.status_code == 200
    assert revoked.json()["usable_left"] == 1
    assert (calls_as(key), calls_as(second["api_key"])) == (200, 401), "at once, though it was remembered"
    assert admin.delete(f"/v1/tenants/acme/keys/{second['key_id']}").json() == revoked.json()

    first_id = key.split("_")[1]
    assert admin.delete(f"/v1/tenants/acme/keys/{first_id}").json()["usable_left"] == 0
    assert calls_as(key) == 401
    listed = admin.get("/v1/tenants/acme/keys").json()["keys"]
    assert {item["key_id"]: item["revoked_at"] is not None for item in listed} == {
        first_id: True,
        second["key_id"]: True,
    }
    assert all(item["last_used_at"] for item in listed)


def test_a_rotation_lets_the_old_key_live_as_long_as_asked(
    admin: httpx.Client, key: str, calls_as: Callable[[str], int]
) -> None:
    path = f"/v1/tenants/acme/keys/{key.split('_')[1]}/rotate"
    graceful = admin.post(path)
    assert graceful.status_code == 201
    second = graceful.json()["key"]["api_key"]
    assert graceful.json()["replaced"]["expires_at"] is not None
    assert (calls_as(key), calls_as(second)) == (200, 200)

    third = admin.post(path, json={"grace_seconds": 0}).json()["key"]["api_key"]
    assert (calls_as(key), calls_as(second), calls_as(third)) == (401, 200, 200)
    assert error_of(admin.post(path), 409)["code"] == "conflict"


@pytest.mark.parametrize("grace", [-1, 10**9, 1.5, "60", None, True])
def test_a_grace_that_is_none_is_refused(admin: httpx.Client, key: str, grace: object) -> None:
    path = f"/v1/tenants/acme/keys/{key.split('_')[1]}/rotate"
    assert error_of(admin.post(path, json={"grace_seconds": grace}), 400)["param"] == "grace_seconds"
    assert len(admin.get("/v1/tenants/acme/keys").json()["keys"]) == 1


def test_another_tenants_key_is_unknown(site: ApiSite, admin: httpx.Client, key: str) -> None:
    site.add_tenant("globex")
    key_id = key.split("_")[1]
    for answer in (
        admin.delete(f"/v1/tenants/globex/keys/{key_id}"),
        admin.post(f"/v1/tenants/globex/keys/{key_id}/rotate"),
        admin.delete("/v1/tenants/acme/keys/%00"),
    ):
        assert error_of(answer, 404)["code"] == "key_not_found"


def test_limits_are_patched_and_hold_from_the_next_request_on(
    site: ApiSite, admin: httpx.Client, key: str, calls_as: Callable[[str], int]
) -> None:
    with site.http(key) as http:
        assert http.get("/v1/backfills").status_code == 200, "its limits are remembered now"
        changed = admin.patch(
            "/v1/tenants/acme/limits", json={"requests_per_minute": 1, "monthly_cost": "0.1"}
        )
        assert changed.json() == {
            "requests_per_minute": 1,
            "tokens_per_minute": Limits().tokens_per_minute,
            "concurrent_requests": Limits().concurrent_requests,
            "monthly_cost": "0.1",
        }
        statuses = {http.get("/v1/backfills").status_code for _ in range(4)}
        assert 429 in statuses
    again = admin.patch("/v1/tenants/acme/limits", json={})
    assert again.json() == changed.json(), "an empty patch changes nothing"
    restored = admin.patch(
        "/v1/tenants/acme/limits", json={"requests_per_minute": None, "monthly_cost": None}
    )
    assert restored.json()["requests_per_minute"] == Limits().requests_per_minute
    assert restored.json()["monthly_cost"] is None
    assert site.tenant("acme").limits == Limits()


@pytest.mark.parametrize(
    "body",
    [
        {"requests_per_minute": 0},
        {"requests_per_minute": "5"},
        {"requests_per_minute": 1.5},
        {"requests_per_minute": True},
        {"tokens_per_minute": 10**12},
        {"monthly_cost": -1},
        {"monthly_cost": "NaN"},
        {"monthly_cost": "much"},
        {"monthly_cost": "0.0000000001"},
        {"requests_per_hour": 5},
    ],
)
def test_a_limit_that_cannot_be_is_refused(
    site: ApiSite, admin: httpx.Client, key: str, body: dict[str, Any]
) -> None:
    answer = admin.patch("/v1/tenants/acme/limits", json={"concurrent_requests": 2, **body})
    assert error_of(answer, 400)["param"] == next(iter(body))
    assert site.tenant("acme").limits == Limits()


def test_a_tenants_spending_is_exact(site: ApiSite, admin: httpx.Client, key: str) -> None:
    from datetime import UTC, datetime

    with site.workspace.ledger.begin() as connection:
        connection.execute(
            insert(usage).values(
                incarnation=site.tenant("acme").incarnation,
                day=datetime.now(UTC).date(),
                provider="gateway",
                model="m",
                table_name="",
                job_id="",
                texts=1,
                tokens=3,
                cost="0.000000001",
            )
        )
    shown = admin.get("/v1/tenants/acme").json()
    assert (shown["tokens"], shown["cost"]) == (3, "0.000000001")
    assert [item["key_id"] for item in shown["keys"]] == [key.split("_")[1]]


def test_a_tenant_is_erased_with_proof_and_made_again_as_another(
    site: ApiSite, admin: httpx.Client, key: str, calls_as: Callable[[str], int]
) -> None:
    assert calls_as(key) == 200
    before = admin.get("/v1/tenants/acme").json()["tenant"]["incarnation"]
    erased = admin.delete("/v1/tenants/acme")
    assert erased.status_code == 200
    assert erased.json()["proven"] is True
    assert (erased.json()["points_left"], erased.json()["ledger_rows_left"]) == (0, 0)
    kept = admin.get("/v1/erasures").json()
    (state,) = kept["erasures"]
    assert (state["incarnation"], state["stage"], state["record"]) == (
        *(before, "first_round"),
        erased.json()["record"],
    )
    record = verify(canonical(state["record"]), kept["public_key"])
    assert record["incarnation"] == before
    assert erased.json()["second_round_at"] == state["due_at"]
    assert calls_as(key) == 401, "at once, though it was remembered"
    assert error_of(admin.delete("/v1/tenants/acme"), 404)
    assert error_of(admin.get("/v1/tenants/acme"), 404)
    assert admin.post("/v1/tenants", json={"name": "acme"}).status_code == 201
    assert admin.get("/v1/tenants/acme").json()["tenant"]["incarnation"] != before
    assert calls_as(key) == 401


def test_a_tenant_with_a_running_job_is_not_erased(
    site: ApiSite, admin: httpx.Client, key: str, calls_as: Callable[[str], int]
) -> None:
    request = JobRequest(("issues",), ("content",), None)
    job_id = jobs.create_job(site.workspace.ledger, site.tenant("acme").incarnation, "backfill", request, ())
    error = error_of(admin.delete("/v1/tenants/acme"), 409)
    assert error["code"] == "job_conflict"
    assert job_id in error["message"]
    assert calls_as(key) == 200
    jobs.request_cancel(site.workspace.ledger, job_id)
    assert admin.delete("/v1/tenants/acme").status_code == 200


def test_two_that_make_the_same_tenant_at_once_make_one(site: ApiSite) -> None:
    together = threading.Barrier(2)
    statuses = []

    def make() -> None:
        with site.http(site.admin_key) as client:
            together.wait()
            statuses.append(client.post("/v1/tenants", json={"name": "acme"}).status_code)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(statuses) == [201, 409]
