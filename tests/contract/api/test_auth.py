"""Keys: whose is whose, and what each may do."""

from __future__ import annotations

import httpx

from tests.support.api_site import ApiSite


def test_a_tenants_key_opens_its_routes_in_either_header(site: ApiSite, key: str) -> None:
    for headers in ({"authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}, {"api-key": key}):
        assert httpx.get(f"{site.url}/v1/models", headers=headers).status_code == 200
