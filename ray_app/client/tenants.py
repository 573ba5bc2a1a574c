"""The operator's calls: tenants, keys, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from ray_app.client.batching import json_body
from ray_app.client.errors import BadAnswer
from ray_app.client.reading import ask, ask_list, read
from ray_app.client.steps import Operation, Patience, Request, call_json, segment
from ray_app.offboarding.reports import Erasure, ErasureReport
from ray_app.reports import KeyInfo, NewTenant, ProbeReport, Revocation, Rotation
from ray_app.tenants import ApiKey, Limits, Placement, Tenant

_PATH: Final = "/v1/tenants"


@dataclass(frozen=True)
class TenantAccount:
    """A tenant, all keys it ever had, and what it has spent since it was made."""

    tenant: Tenant
    keys: tuple[KeyInfo, ...]
    tokens: int
    #: US dollars.
    cost: Decimal


def add(
    patience: Patience, name: str, client_id: int | None, placement: Placement | None
) -> Operation[NewTenant]:
    body: dict[str, Any] = {"name": name}
    if client_id is not None:
        body["client_id"] = client_id
    if placement is not None:
        body["placement"] = placement
    # Done twice, it would be refused the second time and the first key would be lost.
    answer = yield from call_json(patience, Request("POST", _PATH, json_body(body), repeatable=False))
    return NewTenant(
        read(Tenant, answer.get("tenant")), _key(answer.get("key")), read(ProbeReport, answer.get("probe"))
    )


def all_tenants(patience: Patience) -> Operation[list[Tenant]]:
    return ask_list(patience, Tenant, "tenants", Request("GET", _PATH))


def get(patience: Patience, name: str) -> Operation[TenantAccount]:
    return ask(patience, TenantAccount, Request("GET", _of(name)))


def remove(patience: Patience, name: str) -> Operation[ErasureReport]:
    return ask(patience, ErasureReport, Request("DELETE", _of(name)))


def erasures(patience: Patience) -> Operation[list[Erasure]]:
    return ask_list(patience, Erasure, "erasures", Request("GET", "/v1/erasures"))


def set_limits(
    patience: Patience, name: str, changes: Mapping[str, int | Decimal | None]
) -> Operation[Limits]:
    return ask(patience, Limits, Request("PATCH", f"{_of(name)}/limits", json_body(dict(changes))))


def keys(patience: Patience, name: str) -> Operation[list[KeyInfo]]:
    return ask_list(patience, KeyInfo, "keys", Request("GET", f"{_of(name)}/keys"))


def add_key(patience: Patience, name: str) -> Operation[ApiKey]:
    answer = yield from call_json(patience, Request("POST", f"{_of(name)}/keys", repeatable=False))
    return _key(answer)


def rotate_key(patience: Patience, name: str, key_id: str, grace: float | None) -> Operation[Rotation]:
    body = None if grace is None else json_body({"grace_seconds": int(grace)})
    request = Request("POST", f"{_key_path(name, key_id)}/rotate", body, repeatable=False)
    answer = yield from call_json(patience, request)
    return Rotation(_key(answer.get("key")), read(KeyInfo, answer.get("replaced")))


def revoke_key(patience: Patience, name: str, key_id: str) -> Operation[Revocation]:
    return ask(patience, Revocation, Request("DELETE", _key_path(name, key_id)))


def _of(name: str) -> str:
    return f"{_PATH}/{segment(name)}"


def _key_path(name: str, key_id: str) -> str:
    return f"{_of(name)}/keys/{segment(key_id)}"


def _key(answer: object) -> ApiKey:
    if not isinstance(answer, dict) or not all(isinstance(answer.get(f), str) for f in ("key_id", "api_key")):
        raise BadAnswer("The answer holds no API key.")
    return ApiKey(answer["key_id"], answer["api_key"])
