"""Health, readiness and the document of the API."""

from __future__ import annotations

import re

from sqlalchemy import text

from tests.support.api_site import ApiSite


def test_a_running_server_is_alive_and_ready(site: ApiSite) -> None:
    with site.http() as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        ready = http.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "not_ready": []})


def test_a_ledger_of_another_release_is_not_ready(site: ApiSite) -> None:
    with site.workspace.ledger.begin() as connection:
        connection.execute(text("UPDATE rowbeam.alembic_version SET version_num = '0001'"))
    with site.http() as http:
        ready = http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json() == {"status": "not ready", "not_ready": ["database migrations"]}


def test_the_documentation_is_whole_without_the_internet(site: ApiSite) -> None:
    with site.http() as http:
        page = http.get("/docs")
        document = http.get("/openapi.json").json()
    assert page.status_code == 200
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page.text)
    assert all(path in page.text for path in document["paths"])


def test_the_document_tells_every_error_and_no_422(site: ApiSite) -> None:
    with site.http() as http:
        document = http.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            if path.startswith("/v1/"):
                assert {"400", "401", "403", "429", "503"} <= operation["responses"].keys()
                assert operation["security"]
