"""Which engine a tenant's calls go to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import pytest

from ray_app.errors import ConfigError
from ray_app.launching import open_store_for
from ray_app.settings import Settings
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import IndexKey
from ray_app.store.routing import open_store
from ray_app.tenants import Placement, TenantScope

INDEX = IndexKey("issues", "content", EmbeddingSpace("model", "1", 2))


def tenant(placement: Placement) -> TenantScope:
    return TenantScope(uuid4(), placement, b"secret")


def test_an_embedded_tenant_lives_under_home(tmp_path: Path) -> None:
    store = open_store(Settings(home=tmp_path))
    store.ensure_index(tenant(Placement.EMBEDDED), INDEX, [])
    assert list(tmp_path.glob("edge/*/*/*/edge_config.json"))
    assert "1 tenant shards" in store.check()
    store.close()


@pytest.mark.parametrize("placement", [Placement.POOLED, Placement.DEDICATED])
def test_a_server_tenant_without_a_server_is_a_config_error(tmp_path: Path, placement: Placement) -> None:
    store = open_store(Settings(home=tmp_path))
    with pytest.raises(ConfigError, match=rf"{placement}.*ROWBEAM_QDRANT_URL"):
        store.count(tenant(placement), INDEX)
    assert not store.maintain(tenant(placement), INDEX)


def test_opening_a_store_imports_no_engine_and_touches_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ray_app.settings import Settings\n"
        "from ray_app.store.routing import open_store\n"
        "open_store(Settings(home=Path(sys.argv[1]), qdrant_url='http://127.0.0.1:1')).close()\n"
        "print([name for name in ('qdrant_client', 'qdrant_edge', 'ray') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert not list(tmp_path.iterdir())


def test_embedded_vectors_are_reached_through_the_cluster_that_has_them_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also beside a Qdrant server; and a cluster is joined only when an embedded tenant's call needs it."""
    joined: list[str] = []

    @contextmanager
    def connected(settings: Settings) -> Iterator[str]:
        joined.append("in")
        yield str(settings.ray_address)
        joined.append("out")

    class Owned:
        def __init__(self, settings: Settings) -> None:
            assert settings.qdrant_url

        def count(self, *_: object) -> int:
            return 7

        def close(self) -> None:
            assert joined == ["in"]

    for name, member in (("cluster", connected), ("vector_owner", Owned)):
        stand_in = ModuleType(f"ray_app.actors.{name}")
        setattr(stand_in, {"cluster": "connected", "vector_owner": "OwnedStore"}[name], member)
        monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    settings = Settings(home=tmp_path, qdrant_url="http://127.0.0.1:1", ray_address="127.0.0.1:2")
    with open_store_for(settings) as store:
        assert joined == []
        assert store.count(tenant(Placement.EMBEDDED), INDEX) == 7
    assert joined == ["in", "out"]
    assert not (tmp_path / "edge").exists()
