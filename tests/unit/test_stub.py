"""The stand-in model: deterministic, ranks by shared words, refuses poison."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.encoders.stub import POISON, STUB_SPACE, StubEncoder, StubOptions, WordChunker
from ray_app.errors import ConfigError, ItemError

any_text = st.text(st.characters(), max_size=200)


@given(st.lists(any_text, max_size=20))
def test_vectors_are_unit_length_and_depend_on_the_text_alone(texts: list[str]) -> None:
    together = StubEncoder().encode(texts)
    assert together.vectors.shape == (len(texts), STUB_SPACE.dimensions)
    assert together.vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(together.vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, together.vectors, strict=True):
        assert np.array_equal(StubEncoder().encode([text]).vectors[0], vector)


def test_a_stub_of_other_dimensions_is_another_space() -> None:
    small = StubOptions.parse("stub@64:5")
    assert small == StubOptions(5.0, 64)
    assert small.space.dimensions == 64
    assert small.space.space_id != STUB_SPACE.space_id
    assert StubEncoder(dimensions=64).encode(["a b"]).vectors.shape == (1, 64)
    with pytest.raises(ConfigError, match="no number of dimensions"):
        StubOptions.parse("stub@many")


def test_another_process_makes_the_same_vectors() -> None:
    code = (
        "from ray_app.encoders.stub import StubEncoder;"
        " print(StubEncoder().encode(['a b']).vectors.tobytes().hex())"
    )
    answers = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert answers == {f"{StubEncoder().encode(['a b']).vectors.tobytes().hex()}\n"}


def test_texts_that_share_words_are_nearer() -> None:
    texts = [
        "login fails after the update",
        "Login fails with a timeout",
        "change the colour of the button",
        "release notes for version 3",
    ]
    query = StubEncoder().encode(["why login fails"]).vectors[0]
    scores = StubEncoder().encode(texts).vectors @ query
    assert set(np.argsort(-scores)[:2].tolist()) == {0, 1}


def test_poison_is_refused_and_its_neighbours_are_not() -> None:
    encoded = StubEncoder().encode(["fine", f"this is {POISON}!", "fine"])
    assert set(encoded.faults) == {1}
    assert isinstance(encoded.faults[1], ItemError)
    assert not encoded.vectors[1].any()
    assert np.array_equal(encoded.vectors[0], encoded.vectors[2])
    assert encoded.tokens == 2


def test_options() -> None:
    assert StubOptions.parse("bundled") is None
    assert StubOptions.parse("stubborn/model") is None
    assert StubOptions.parse("stub") == StubOptions(0)
    assert StubOptions.parse("stub:2.5") == StubOptions(2.5)


@pytest.mark.parametrize("value", ["stub:", "stub:fast", "stub:-1", "stub:1e3"])
def test_a_latency_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="stub:20"):
        StubOptions.parse(value)


@given(any_text)
def test_word_chunks_are_exact_pieces_that_cover_the_text(text: str) -> None:
    chunks = WordChunker().chunk([text])[0]
    assert bool(chunks) == bool(text.strip())
    assert all(chunk.text in text and chunk.tokens <= STUB_SPACE.max_tokens for chunk in chunks)


def test_long_texts_are_cut_with_overlap() -> None:
    numbered = [f"n{number}" for number in range(600)]
    chunks = WordChunker().chunk([" ".join(numbered)])[0]
    assert [chunk.tokens for chunk in chunks] == [254, 254, 156]
    assert chunks[0].text.split()[-32:] == chunks[1].text.split()[:32]
    assert {word for chunk in chunks for word in chunk.text.split()} == set(numbered)


def test_a_megabyte_without_spaces_is_cut() -> None:
    chunks = WordChunker().chunk(["x" * 1_000_000])[0]
    assert max(len(chunk.text) for chunk in chunks) == 254 * 100
