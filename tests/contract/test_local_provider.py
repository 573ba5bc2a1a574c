"""The local provider with the real bundled model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from ray_app.encoders.loading import load_encoder
from ray_app.encoders.model_config import load_tokenizer
from ray_app.encoders.model_files import describe_space, find_model
from ray_app.encoders.openvino_encoder import OpenVinoEncoder
from ray_app.encoders.port import FloatArray
from ray_app.encoders.stub import POISON
from ray_app.encoders.torch_encoder import TorchEncoder
from ray_app.errors import ConfigError, ItemError, ProviderUnavailable
from ray_app.providers.local import LocalProvider, local_chunker, local_provider
from ray_app.settings import Settings
from ray_app.spaces import EmbeddingSpace
from tests.support.real_encoders import RealEncoder, failing, watched
from tests.support.sentences import ODD_TEXTS, sentences

#: Cosine below which a vector is not that of the text's original. 8-bit weights turn it a little.
SAME = {"torch": 0.99999, "openvino-int8": 0.99}
#: And below which it is not that of the text in another batch: the last bit of a sum depends on how many
#: are added at once, and now and then decides how an activation is rounded to 8 bits.
SAME_ELSEWHERE = {"torch": 0.99999, "openvino-int8": 0.999}


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"), cache_dir=model_cache)


@pytest.fixture(scope="module")
def space(options: Settings) -> EmbeddingSpace:
    return describe_space(options)


@pytest.fixture(scope="module")
def original(space: EmbeddingSpace) -> TorchEncoder:
    return TorchEncoder(find_model("bundled"), space, device="cpu")


@pytest.fixture(scope="module", params=["torch", "openvino-int8"])
def encoder(
    request: pytest.FixtureRequest, options: Settings, space: EmbeddingSpace, original: TorchEncoder
) -> RealEncoder:
    if request.param == "torch":
        return original
    loaded = load_encoder(options, space, device="cpu")
    assert isinstance(loaded, OpenVinoEncoder)
    assert loaded.backend == request.param
    return loaded


def backend_of(encoder: RealEncoder) -> str:
    return "torch" if isinstance(encoder, TorchEncoder) else encoder.backend


@pytest.fixture
def provider(options: Settings, space: EmbeddingSpace, encoder: RealEncoder) -> LocalProvider:
    return LocalProvider(space, local_chunker(options), lambda: encoder)


def test_vectors_are_those_of_sentence_transformers(
    provider: LocalProvider, encoder: RealEncoder, original: TorchEncoder
) -> None:
    texts = sentences(60)
    expected = original.model.encode(texts, batch_size=32, normalize_embeddings=True)
    found = provider.embed_documents(texts).vectors
    assert found.dtype == np.float32
    assert found.shape == (60, 384)
    assert (found * expected).sum(axis=1).min() >= SAME[backend_of(encoder)]
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_the_budget_changes_speed_and_not_vectors(provider: LocalProvider, encoder: RealEncoder) -> None:
    """Nor does padding: a text's neighbours in its batch leave no trace in its vector."""
    texts = sentences(40, seed=1)
    one_by_one = [encoder.encode([text]).vectors[0] for text in texts]
    cosines = (np.array(one_by_one) * provider.embed_documents(texts).vectors).sum(axis=1)
    assert cosines.min() >= SAME_ELSEWHERE[backend_of(encoder)]


def test_order_is_kept_whatever_the_lengths(provider: LocalProvider, encoder: RealEncoder) -> None:
    texts = sentences(30, seed=2)
    forwards = provider.embed_documents(texts).vectors
    backwards = provider.embed_documents(texts[::-1]).vectors[::-1]
    assert (forwards * backwards).sum(axis=1).min() >= SAME_ELSEWHERE[backend_of(encoder)]
    # Every text is nearest to itself, so a swapped pair would show.
    assert (forwards @ backwards.T).argmax(axis=1).tolist() == list(range(30))


def test_the_same_call_gives_the_same_bits(provider: LocalProvider) -> None:
    texts = sentences(10, seed=3)
    assert np.array_equal(provider.embed_documents(texts).vectors, provider.embed_documents(texts).vectors)


def test_odd_texts_have_vectors(provider: LocalProvider) -> None:
    embedded = provider.embed_documents(list(ODD_TEXTS))
    assert not embedded.faults
    assert np.allclose(np.linalg.norm(embedded.vectors, axis=1), 1, atol=1e-6)


def test_no_texts(provider: LocalProvider) -> None:
    embedded = provider.embed_documents([])
    assert (embedded.vectors.shape, embedded.tokens, embedded.cost) == ((0, 384), 0, 0)


def test_tokens_are_those_the_model_read(provider: LocalProvider) -> None:
    count = load_tokenizer(find_model("bundled").config().tokenizer)
    texts = ["fix the login", "a", "", "word " * 1000]
    alone = [len(count.encode(text, add_special_tokens=False)) for text in texts]
    assert provider.embed_documents(texts).tokens == sum(min(tokens, 254) for tokens in alone)


def test_chunks_are_read_whole(provider: LocalProvider) -> None:
    """What the chunker counts is what the model reads: no chunk is cut off."""
    long = [" ".join(sentences(15, seed=4)), "déjà vu! " * 200, "中文 " * 250, "https://a.b/c?d=e&f=g " * 30]
    chunks = [chunk for cut in provider.chunker.chunk(long) for chunk in cut]
    assert len(chunks) > 8
    embedded = provider.embed_documents([chunk.text for chunk in chunks])
    assert embedded.tokens == sum(chunk.tokens for chunk in chunks)


def test_a_query_finds_what_means_the_same(provider: LocalProvider) -> None:
    texts = ["The sign-in page rejects valid passwords", "Add a dark theme", "Upgrade PostgreSQL to 18"]
    query = provider.embed_query("login fails")
    assert query.shape == (384,)
    assert (provider.embed_documents(texts).vectors @ query).argmax() == 0


def test_prefixes_are_put_in_front(space: EmbeddingSpace, encoder: RealEncoder) -> None:
    prefixed = EmbeddingSpace("m", "1", 384, document_prefix="passage: ", query_prefix="query: ")
    provider = LocalProvider(prefixed, local_chunker(Settings(home=Path())), lambda: encoder)
    expected = encoder.encode(["passage: text", "query: text"]).vectors
    assert provider.embed_documents(["text"]).vectors[0] @ expected[0] >= SAME_ELSEWHERE[backend_of(encoder)]
    assert provider.embed_query("text") @ expected[1] >= SAME_ELSEWHERE[backend_of(encoder)]


def test_a_text_the_model_fails_on_does_not_spoil_its_batch(
    provider: LocalProvider, encoder: RealEncoder
) -> None:
    texts = sentences(50, seed=5)
    expected = provider.embed_documents(texts)
    poison = load_tokenizer(find_model("bundled").config().tokenizer).token_to_id("poison")
    spoilt = [text if place not in (7, 31) else f"poison {text}" for place, text in enumerate(texts)]
    with failing(encoder, lambda ids: bool((ids == poison).any())):
        embedded = provider.embed_documents(spoilt)
        with pytest.raises(ItemError):
            provider.embed_query("poison")
    assert set(embedded.faults) == {7, 31}
    assert "OutOfMemoryError" in str(embedded.faults[7])
    assert "own words" not in str(embedded.faults[7])
    assert not embedded.vectors[[7, 31]].any()
    others = [place for place in range(50) if place not in (7, 31)]
    cosines = (embedded.vectors[others] * expected.vectors[others]).sum(axis=1)
    assert cosines.min() >= SAME_ELSEWHERE[backend_of(encoder)]
    assert embedded.tokens < expected.tokens


def test_a_batch_too_large_for_the_memory_is_halved(provider: LocalProvider, encoder: RealEncoder) -> None:
    texts = sentences(40, seed=6)
    expected = provider.embed_documents(texts)
    with failing(encoder, lambda ids: ids.shape[0] > 3):
        embedded = provider.embed_documents(texts)
    assert not embedded.faults
    assert embedded.tokens == expected.tokens
    assert (embedded.vectors * expected.vectors).sum(axis=1).min() >= SAME_ELSEWHERE[backend_of(encoder)]


def test_a_model_that_fails_on_everything_charges_no_text(
    provider: LocalProvider, encoder: RealEncoder
) -> None:
    with failing(encoder, lambda ids: True), pytest.raises(ProviderUnavailable, match="stopped working"):
        provider.embed_documents(sentences(5))
    assert not provider.embed_documents(sentences(5)).faults


def test_batches_side_by_side_are_each_texts_own_and_never_share_a_request(
    options: Settings, space: EmbeddingSpace
) -> None:
    alone = load_encoder(options.model_copy(update={"encoder_threads": 1}), space, device="cpu")
    several = load_encoder(options.model_copy(update={"encoder_threads": 3}), space, device="cpu")
    assert isinstance(several, OpenVinoEncoder)
    texts = sentences(200, seed=3)
    inside: list[object] = []
    side_by_side, shared = [], []
    infer = several._infer

    def enter(request: object, *arguments: Any) -> FloatArray:
        shared.append(any(other is request for other in inside))
        inside.append(request)
        side_by_side.append(len(inside))
        try:
            return infer(request, *arguments)
        finally:
            inside.remove(request)

    with patch.object(several, "_infer", enter):
        found = several.encode(texts)
    assert not any(shared)
    assert max(side_by_side) > 1
    assert found.counts == alone.encode(texts).counts
    assert (found.vectors * alone.encode(texts).vectors).sum(axis=1).min() >= SAME_ELSEWHERE["openvino-int8"]


def test_threads_take_turns(provider: LocalProvider, encoder: RealEncoder) -> None:
    batches = [sentences(6, seed=seed) for seed in range(4)]
    expected = [provider.embed_documents(batch).vectors for batch in batches]
    inside = Lock()
    turns = []

    def enter(ids: object) -> None:
        turns.append(inside.acquire(blocking=False))

    with watched(encoder, enter, inside.release), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(provider.embed_documents, batches * 2))
    assert turns
    assert all(turns)
    for place, embedded in enumerate(found):
        assert not embedded.faults
        assert np.allclose(embedded.vectors, expected[place % 4], atol=1e-6)


def test_the_model_is_loaded_once_and_only_when_needed(
    options: Settings, space: EmbeddingSpace, encoder: RealEncoder
) -> None:
    loads = []

    def load() -> RealEncoder:
        loads.append(1)
        return encoder

    provider = LocalProvider(space, local_chunker(options), load)
    assert provider.name in {"local-cpu", "local-gpu"}
    provider.embed_documents([])
    assert not loads
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(provider.embed_query, ["a", "b", "c", "d"]))
    assert len(loads) == 1
    assert provider.name == "local-cpu"
    provider.close()
    provider.embed_query("a")
    assert len(loads) == 2


def test_files_that_do_not_make_the_described_space_are_refused(space: EmbeddingSpace) -> None:
    wrong = EmbeddingSpace(space.model, space.revision, 768)
    with pytest.raises(ConfigError, match="768"):
        TorchEncoder(find_model("bundled"), wrong, device="cpu")


def test_the_stub_keeps_the_same_contract(tmp_path: Path) -> None:
    provider = local_provider(Settings(home=tmp_path, local_model="stub"))
    embedded = provider.embed_documents(["fine", POISON, ""])
    assert (provider.name, embedded.cost, set(embedded.faults)) == ("stub", 0, {1})
    assert embedded.vectors.shape == (3, provider.space.dimensions)
    with pytest.raises(ItemError):
        provider.embed_query(POISON)
