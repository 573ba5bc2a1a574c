"""Token windows over text, for a WordPiece tokenizer and for one that makes a token of every byte."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ray_app.encoders.model_config import load_tokenizer
from ray_app.encoders.model_files import find_model
from ray_app.encoders.token_chunker import TokenChunker
from ray_app.errors import ConfigError
from ray_app.text import Chunk

WORDPIECE = find_model("bundled").config().tokenizer

words = st.sampled_from(
    [
        "fix",
        "login",
        "supercalifragilistic",
        "e\u0301te\u0301",
        "naïve",
        "中文字符",
        "👩‍👩‍👧",
        "🇧🇷",
        "\u200b",
        "a\x00b",
        "ภาษาไทยไม่มีช่องว่าง",
        "\ud800",
        "x" * 130,
        "a,b.c;d",
        "[SEP]",
        "\u0301",
    ]
)
spaces = st.sampled_from([" ", "\n", "  \t", "\u3000", ""])
texts = st.one_of(
    st.text(max_size=300),
    st.lists(st.tuples(words, spaces), max_size=60).map(lambda parts: "".join(map("".join, parts))),
)
any_texts = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def bytes_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer without merges: an emoji is four tokens, and cuts can fall inside it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: place for place, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    file = tmp_path_factory.mktemp("bytes") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


@cache
def chunker(size: int, overlap: int | None = None, tokenizer: Path = WORDPIECE) -> TokenChunker:
    return TokenChunker(tokenizer, size, overlap)


@cache
def tokens_of(tokenizer: Path) -> Callable[[str], int]:
    loaded = load_tokenizer(tokenizer)
    return lambda text: len(loaded.encode(text, add_special_tokens=False))


def check(text: str, chunks: list[Chunk], size: int, count: Callable[[str], int]) -> None:
    """What holds for the chunks of any text: exact stripped pieces, in order, that fit."""
    readable = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    assert bool(chunks) == bool(text.strip())
    place = 0
    for chunk in chunks:
        assert chunk.text
        assert chunk.text == chunk.text.strip()
        place = readable.index(chunk.text, place)
        assert chunk.tokens == count(chunk.text) <= size


@pytest.mark.parametrize("size", [8, 40, 254])
@any_texts
@given(text=texts)
@example(text="\u200b" * 20_000 + " foo " + "\u0301" * 9_000)
@example(text="\u200b" * 20_000)
@example(text="x" * 20_000)
@example(text="ab" * 40_000)
@example(text="0A00000002000000000000:" + "0" * 250 + "1:")
def test_wordpiece_chunks_are_exact_pieces_that_fit(text: str, size: int) -> None:
    check(text, chunker(size).chunk([text])[0], size, tokens_of(WORDPIECE))


@any_texts
@given(text=texts)
@example(text="👩‍👩‍👧" * 30)
def test_byte_level_chunks_are_exact_pieces_that_fit(text: str, bytes_tokenizer: Path) -> None:
    check(text, chunker(16, None, bytes_tokenizer).chunk([text])[0], 16, tokens_of(bytes_tokenizer))


@any_texts
@given(count=st.integers(1, 400), size=st.integers(16, 64))
def test_every_word_is_whole_in_some_chunk(count: int, size: int) -> None:
    named = [f"word{number}x" for number in range(count)]
    # A word is at most 4 tokens here, less than the overlap: no cut has to go through one.
    chunks = chunker(size, 7).chunk([" ".join(named)])[0]
    found = {word for chunk in chunks for word in chunk.text.split()}
    assert found == set(named)


@any_texts
@given(text=texts)
def test_a_text_that_fits_is_one_chunk(text: str) -> None:
    readable = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text).strip()
    tokens = tokens_of(WORDPIECE)(readable)
    chunks = chunker(254).chunk([text])[0]
    if readable and tokens <= 254 and len(readable) <= 8000:
        assert chunks == [Chunk(readable, tokens)]


@any_texts
@given(batch=st.lists(texts, max_size=6))
def test_a_batch_is_cut_as_its_texts_are(batch: list[str]) -> None:
    assert chunker(12).chunk(batch) == [chunker(12).chunk([text])[0] for text in batch]


def test_marks_that_make_no_token_stay_with_their_word() -> None:
    chunks = chunker(40).chunk(["\u200bfix " + "the login " * 60 + "cafe\u0301"])[0]
    assert len(chunks) > 2
    assert chunks[0].text.startswith("\u200bfix")
    assert chunks[-1].text.endswith("cafe\u0301")


def test_neighbours_overlap() -> None:
    numbered = [f"n{number}" for number in range(1000)]
    chunks = chunker(100, 20).chunk([" ".join(numbered)])[0]
    for before, after in pairwise(chunks):
        shared = set(before.text.split()) & set(after.text.split())
        assert 1 <= len(shared) <= 20


def test_no_overlap_repeats_nothing() -> None:
    text = " ".join(f"n{number}" for number in range(1000))
    chunks = chunker(100, 0).chunk([text])[0]
    assert "".join(chunk.text for chunk in chunks).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("text", ["x" * 1_000_000, "a," * 500_000, "déjà vu " * 125_000])
def test_a_megabyte_is_cut_into_pieces_of_bounded_length(text: str) -> None:
    chunks = chunker(254).chunk([text])[0]
    assert max(len(chunk.text) for chunk in chunks) <= 254 * 32
    assert max(chunk.tokens for chunk in chunks) <= 254
    assert sum(len(chunk.text) for chunk in chunks) >= len(text) * 0.99


def test_segments_are_joined_without_a_seam() -> None:
    """A text of several segments is cut as if it had been tokenised in one go: no short chunk inside."""
    text = " ".join(f"n{number}" for number in range(60_000))
    chunks = chunker(100).chunk([text])[0]
    assert min(chunk.tokens for chunk in chunks[:-1]) > 80
    assert {word for chunk in chunks for word in chunk.text.split()} == set(text.split())


def test_threads_share_a_chunker() -> None:
    shared = TokenChunker(WORDPIECE, 32)
    batch = [f"commit {number}: " + "fix the build " * number for number in range(60)]
    expected = shared.chunk(batch)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(shared.chunk, [batch] * 32))


def test_the_id_tells_windows_apart() -> None:
    ids = {TokenChunker(WORDPIECE, *window).chunker_id for window in [(254,), (254, 16), (64,), (64, 16)]}
    # A quarter of 64 tokens is the overlap a small window gets by itself.
    assert ids == {"tokens:254:32:v1", "tokens:254:16:v1", "tokens:64:16:v1"}


@pytest.mark.parametrize(("size", "overlap"), [(10, 5), (10, -1), (1, 1), (0, 0)])
def test_an_overlap_of_half_a_window_is_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        TokenChunker(WORDPIECE, size, overlap)


def test_a_broken_tokenizer_is_a_config_error(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    with pytest.raises(ConfigError, match="cannot be read"):
        TokenChunker(file, 254)
    file.write_text("{}")
    with pytest.raises(ConfigError, match="save_pretrained"):
        TokenChunker(file, 254)
