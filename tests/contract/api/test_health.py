"""Health, readiness and the document of the API."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import make_url, text

from ray_app.db.engine import engine_for
from ray_app.serving.in_process import local_backend
from ray_app.settings import Settings
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


def test_a_model_that_has_ended_is_not_ready_and_only_its_name_is_told(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings()
    backend = local_backend(settings)
    with ApiSite(settings, backend=lambda _: backend) as site, site.http() as http:
        assert http.get("/readyz").status_code == 200
        backend.close()
        ready = http.get("/readyz")
        assert (ready.status_code, ready.json()["not_ready"]) == (503, ["stub"])
        assert http.get("/healthz").status_code == 200


@contextmanager
def out_of_reach(postgres_url: str, database_url: str) -> Iterator[None]:
    """No connection to the database, neither those there are nor new ones."""
    name = make_url(database_url).database
    engine = engine_for(postgres_url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
        try:
            yield
        finally:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    engine.dispose()


def test_a_database_out_of_reach_is_503_until_it_is_back(
    site: ApiSite, key: str, postgres_url: str, database_url: str
) -> None:
    name = make_url(database_url).database or ""
    with site.http(key) as http:
        assert http.get("/readyz").status_code == 200
        with out_of_reach(postgres_url, database_url):
            ready = http.get("/readyz")
            assert (ready.status_code, ready.json()["not_ready"]) == (503, ["database"])
            assert http.get("/healthz").status_code == 200
            refused = http.get("/v1/models")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_unavailable")
            assert name not in ready.text + refused.text
        assert http.get("/readyz").status_code == 200
        assert http.get("/v1/models").status_code == 200


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
