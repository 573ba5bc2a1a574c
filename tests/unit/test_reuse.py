"""Each distinct text goes to the model once, whoever asks for it, and everybody gets its own vector."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.encoding import encode_part
from ray_app.errors import ItemError, ProviderUnavailable
from ray_app.parts import Part, PartKey
from ray_app.providers.local import LocalProvider
from ray_app.providers.port import Embedded
from ray_app.reports import Counts
from ray_app.reuse import TextReuse
from ray_app.spaces import EmbeddingSpace
from ray_app.text import text_hash
from tests.support.fake_encoder import DIMENSIONS, FakeEncoder, correct, tokens_of, vector_of

SPACE = EmbeddingSpace("model", "1", DIMENSIONS)
TEXTS = st.lists(st.sampled_from(["a", "b b", "c c c", "a ", "", "\ud800", "d" * 300]), max_size=20)
POISON = "poison"


class NoChunker:
    chunker_id = "none"

    def chunk(self, texts: Sequence[str]) -> list[list[object]]:
        raise AssertionError("not asked for")


def provider_of(encoder: FakeEncoder) -> LocalProvider:
    return LocalProvider(SPACE, NoChunker(), lambda: encoder, name="fake")


def nothing_stored(_: Sequence[bytes]) -> Mapping[bytes, np.ndarray]:
    return {}


def part_of(texts: Sequence[str], chunks_each: int = 1) -> Part:
    """A part whose records have ``chunks_each`` texts, the last one perhaps fewer."""
    records = [str(place // chunks_each) for place in range(len(texts))]
    return Part(
        PartKey("job", 1, 0, None, None),
        *("issues", "content", SPACE.space_id),
        version=1,
        counts=Counts(read=len(set(records))),
        record_ids=records,
        chunk_numbers=[place % chunks_each for place in range(len(texts))],
        texts=list(texts),
        hashes=["hash"] * len(texts),
        data=[{}] * len(texts),
        updated_at=[None] * len(texts),
    )


def embed_with(encoder: FakeEncoder) -> Callable[[Sequence[str]], Embedded]:
    return provider_of(encoder).embed_documents


@given(TEXTS, st.integers(1, 3))
def test_a_part_gives_each_text_its_vector_and_the_model_each_text_once(
    texts: list[str], chunks_each: int
) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    encoder = FakeEncoder()

    part = encode_part(part_of(texts, chunks_each), provider_of(encoder))

    assert sorted(encoder.texts) == sorted(set(texts))
    if not texts:
        return
    assert part.vectors is not None
    assert part.vectors == pytest.approx(np.array([vector_of(text) for text in texts]))
    assert part.counts.chunks - part.counts.reused == len(set(texts))
    assert part.counts.balanced
    assert part.tokens == sum(map(tokens_of, set(texts))), "only what was sent is charged"


@given(st.lists(TEXTS, max_size=6), st.integers(1, 12))
def test_parts_share_what_one_of_them_has_embedded(parts: list[list[str]], capacity: int) -> None:
    encoder, reuse = FakeEncoder(), TextReuse(SPACE, nothing_stored, capacity)
    encoder.fails = lambda texts: correct([text.encode("utf-8", "replace").decode() for text in texts])
    for texts in parts:
        answer = reuse.embed(texts, embed_with(encoder))
        expected = [vector_of(text.encode("utf-8", "replace").decode()) for text in texts]
        assert answer.embedded.vectors == pytest.approx(np.array(expected).reshape(-1, DIMENSIONS))
    distinct = {text for texts in parts for text in texts}
    if capacity >= len(distinct):
        assert sorted(encoder.texts) == sorted(distinct)


def test_the_oldest_make_room_and_are_then_looked_up() -> None:
    asked: list[bytes] = []

    def lookup(hashes: Sequence[bytes]) -> Mapping[bytes, np.ndarray]:
        asked.extend(hashes)
        return {digest: vector_of("a") for digest in hashes if digest == text_hash("a", SPACE)}

    encoder, reuse = FakeEncoder(), TextReuse(SPACE, lookup, capacity=2)
    assert reuse.embed(["a"], embed_with(encoder)).sent == frozenset()
    for text in ("b", "c", "c", "b", "a"):
        reuse.embed([text], embed_with(encoder))
    assert encoder.texts == ["b", "c"]
    assert asked == [text_hash(text, SPACE) for text in ("a", "b", "c", "a")]


def test_the_same_text_in_another_space_is_another_text() -> None:
    assert text_hash("a", SPACE) != text_hash("a", EmbeddingSpace("model", "2", DIMENSIONS))
    assert text_hash("a", SPACE) != text_hash("a ", SPACE)


def test_a_text_at_fault_costs_every_record_that_has_it_and_no_other() -> None:
    class Refusing(LocalProvider):
        def embed_documents(self, texts: Sequence[str]) -> Embedded:
            answer = super().embed_documents(texts)
            faults = {place: ItemError("refused") for place, text in enumerate(texts) if text == POISON}
            return Embedded(answer.vectors, answer.tokens, Decimal("0.5"), faults)

    encoder = FakeEncoder()
    provider = Refusing(SPACE, NoChunker(), lambda: encoder, name="fake")
    part = encode_part(part_of(["a", POISON, "b", POISON, "a"]), provider)
    assert encoder.texts == ["a", POISON, "b"]
    assert part.record_ids == ["0", "2", "4"]
    assert [fault.record_id for fault in part.faults] == ["3", "1"]
    assert part.counts == Counts(read=5, embedded=3, dead=2, chunks=3, reused=1)
    assert part.cost == Decimal("0.5")


def test_threads_that_want_one_text_at_the_same_time_embed_it_once() -> None:
    encoder, reuse = FakeEncoder(), TextReuse(SPACE, nothing_stored)
    encoder.hold()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(reuse.embed, ["a", "b"], embed_with(encoder))
        assert encoder.entered.wait(10)
        others = [pool.submit(reuse.embed, texts, embed_with(encoder)) for texts in (["b"], ["a", "b", "a"])]
        encoder.release()
        answers = [future.result(10) for future in (first, *others)]
    assert encoder.batches == [["a", "b"]]
    assert [answer.sent for answer in answers] == [{0, 1}, set(), set()]
    assert answers[2].embedded.vectors == pytest.approx(np.array([vector_of(text) for text in "aba"]))


def test_who_waits_for_a_text_embeds_it_when_the_other_fails() -> None:
    reuse = TextReuse(SPACE, nothing_stored)
    begun, fail = threading.Event(), threading.Event()

    def down(_: Sequence[str]) -> Embedded:
        begun.set()
        assert fail.wait(10)
        raise ProviderUnavailable("down")

    encoder = FakeEncoder()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(reuse.embed, ["a"], down)
        assert begun.wait(10)
        second = pool.submit(reuse.embed, ["a"], embed_with(encoder))
        fail.set()
        with pytest.raises(ProviderUnavailable):
            first.result(10)
        assert second.result(10).embedded.vectors[0] == pytest.approx(vector_of("a"))
    assert encoder.batches == [["a"]]
