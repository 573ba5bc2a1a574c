"""Which provider serves which space, with nothing heavy loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from ray_app.encoders.stub import STUB_SPACE
from ray_app.errors import ConfigError
from ray_app.providers.catalog import NO_GATEWAY, STUB_IN_USE, ProviderCatalog
from ray_app.settings import GatewaySettings, Settings
from ray_app.spaces import EmbeddingSpace, Preference

GATEWAY = GatewaySettings(url="http://127.0.0.1:9/v1", model="text-embedding-3-small")
MakeCatalog = Callable[..., ProviderCatalog]


@pytest.fixture
def make_catalog(tmp_path: Path) -> MakeCatalog:
    def make(local_model: str = "stub", gateway: GatewaySettings | None = None) -> ProviderCatalog:
        return ProviderCatalog(Settings(home=tmp_path, local_model=local_model, gateway=gateway))

    return make


def test_without_a_gateway_everything_is_local(make_catalog: MakeCatalog) -> None:
    catalog = make_catalog("bundled")
    spaces = [catalog.spaces_for(preference) for preference in Preference]
    assert len(set(spaces)) == 1
    assert catalog.provider_name(spaces[0]) in {"local-cpu", "local-gpu"}
    assert catalog.chunker_for(spaces[0]).chunker_id == "tokens:254:32:v1"
    assert catalog.price_per_million(spaces[0]) == 0
    assert catalog.notes() == (NO_GATEWAY,)


def test_quality_goes_to_the_gateway_when_there_is_one(make_catalog: MakeCatalog) -> None:
    catalog = make_catalog(gateway=GATEWAY)
    local, balanced, quality = (catalog.spaces_for(preference) for preference in Preference)
    assert local == balanced == STUB_SPACE
    assert (quality.model, quality.dimensions) == ("text-embedding-3-small", 1536)
    assert catalog.provider_name(quality) == "gateway"
    assert catalog.price_per_million(quality) == Decimal("0.02")
    assert catalog.chunker_for(quality).chunker_id != catalog.chunker_for(local).chunker_id
    assert catalog.notes() == (STUB_IN_USE,)


def test_each_space_has_its_provider(make_catalog: MakeCatalog) -> None:
    catalog = make_catalog(gateway=GATEWAY)
    quality = catalog.spaces_for(Preference.QUALITY)
    local, gateway = catalog.provider_for(STUB_SPACE), catalog.provider_for(quality.space_id)
    assert (local.name, local.space) == ("stub", STUB_SPACE)
    assert (gateway.name, gateway.space) == ("gateway", quality)
    assert catalog.provider_for(STUB_SPACE.space_id) is local
    assert catalog.provider_for(quality) is gateway
    catalog.close()
    assert catalog.provider_for(STUB_SPACE) is not local
    catalog.close()


@pytest.mark.parametrize(
    ("pinned", "hint"),
    [
        (replace(STUB_SPACE, dimensions=7), "with the same weights"),
        (EmbeddingSpace("text-embedding-3-large", "gateway:1", 3072), "MODEL=text-embedding-3-large"),
        (EmbeddingSpace("sentence-transformers/all-MiniLM-L6-v2", "53aa51172d14", 384), "=bundled"),
        (EmbeddingSpace("our-own", "0123456789ab", 768), "folder or hub id"),
        ("0123456789ab", "Restore the model settings"),
    ],
)
def test_a_pinned_space_nobody_serves(
    make_catalog: MakeCatalog, pinned: EmbeddingSpace | str, hint: str
) -> None:
    catalog = make_catalog(gateway=GATEWAY)
    name = pinned if isinstance(pinned, str) else pinned.model
    for ask in (
        catalog.provider_for,
        catalog.chunker_for,
        catalog.provider_name,
        catalog.price_per_million,
    ):
        with pytest.raises(ConfigError, match="which nothing configured serves") as caught:
            ask(pinned)
        assert name in str(caught.value)
        assert hint in str(caught.value)
        assert "model stub" in str(caught.value)
        assert "model text-embedding-3-small" in str(caught.value)


def test_a_stub_space_is_not_served_by_a_real_model(make_catalog: MakeCatalog) -> None:
    with pytest.raises(ConfigError, match="Set ROWBEAM_LOCAL_MODEL=stub"):
        make_catalog("bundled").provider_for(STUB_SPACE)


def test_asking_loads_nothing_heavy(tmp_path: Path) -> None:
    """A plan asks all this; it must not wait seconds for torch."""
    code = f"""
import sys
from pathlib import Path
from ray_app.providers.catalog import ProviderCatalog
from ray_app.settings import Settings
from ray_app.spaces import Preference
catalog = ProviderCatalog(Settings(home=Path({str(tmp_path)!r})))
space = catalog.spaces_for(Preference.QUALITY)
catalog.chunker_for(space).chunk(["a text"])
catalog.provider_name(space), catalog.price_per_million(space), catalog.notes()
catalog.provider_for(space).embed_documents([])
heavy = {{"torch", "transformers", "sentence_transformers", "httpx", "ray", "huggingface_hub"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
