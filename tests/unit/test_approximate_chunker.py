from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.providers.approximate_chunker import ApproximateChunker, estimate_tokens

#: Any code points, lone surrogates included, and enough of what cuts are made at.
texts = st.text(
    st.one_of(
        st.characters(codec=None),
        st.sampled_from(" \n\t.!?;。！　"),
        st.sampled_from("abcdefgh"),
    ),
    max_size=400,
)


@st.composite
def chunkers(draw: st.DrawFn) -> ApproximateChunker:
    max_tokens = draw(st.integers(4, 40))
    bytes_per_token = draw(st.floats(1.0, 5.0))
    limit = math.floor(max_tokens * bytes_per_token)
    overlap = draw(st.integers(0, max(0, math.floor((limit - 6) / bytes_per_token))))
    return ApproximateChunker(max_tokens, overlap, bytes_per_token)


def limit_of(chunker: ApproximateChunker) -> int:
    return int(chunker.chunker_id.split(":")[1])


@given(chunkers(), texts)
def test_no_chunk_exceeds_the_limit_or_is_blank(chunker: ApproximateChunker, text: str) -> None:
    for chunk in chunker.chunk([text])[0]:
        assert 0 < chunk.tokens <= limit_of(chunker)
        assert chunk.text.strip() == chunk.text != ""


@given(
    chunkers(),
    st.lists(
        st.characters(codec=None).filter(lambda character: not character.isspace()), unique=True, max_size=150
    ),
    st.lists(
        st.tuples(st.integers(0, 150), st.sampled_from([" ", "\n", "\n\n", "\t\t\t", "　", " " * 30])),
        max_size=40,
    ),
)
def test_chunks_are_pieces_of_the_text_in_order_and_leave_only_white_space_out(
    chunker: ApproximateChunker, characters: list[str], gaps: list[tuple[int, str]]
) -> None:
    for position, gap in gaps:  # every other character is unique, so pieces can be located
        characters.insert(position, gap)
    text = "".join(characters)
    pieces = [chunk.text for chunk in chunker.chunk([text])[0]]
    starts = [text.index(piece) for piece in pieces]
    ends = [start + len(piece) for start, piece in zip(starts, pieces, strict=True)]
    assert starts == sorted(starts)
    assert ends == sorted(set(ends)), "every piece adds something"
    assert set("".join(pieces)) >= set("".join(text.split()))


@given(chunkers(), texts)
def test_blank_texts_have_no_chunk_and_all_others_do(chunker: ApproximateChunker, text: str) -> None:
    assert bool(chunker.chunk([text])[0]) == bool(text.strip())


@given(chunkers(), st.lists(texts, max_size=4))
def test_a_text_is_cut_the_same_in_any_company(chunker: ApproximateChunker, many: list[str]) -> None:
    assert chunker.chunk(many) == [chunker.chunk([text])[0] for text in many]


def test_a_text_within_the_limit_is_one_chunk() -> None:
    (chunk,) = ApproximateChunker(100, 10).chunk(["a" * 250])[0]
    assert (chunk.text, chunk.tokens) == ("a" * 250, 100)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("one two three.\n\nfour five six. seven eight", "one two three."),
        ("one two three four\nfive six. seven eight nine", "one two three four"),
        ("one two three. four five six seven eight nine", "one two three."),
        ("one two three four five six seven eight nine", "one two three four five"),
        ("onetwothreefourfivesixseveneightnineteneleven", "onetwothreefourfivesixsev"),
    ],
)
def test_it_cuts_at_the_best_break_of_the_second_half(text: str, first: str) -> None:
    assert ApproximateChunker(10, 0).chunk([text])[0][0].text == first


def test_chinese_is_cut_after_a_sentence() -> None:
    chunks = ApproximateChunker(20, 0).chunk(["今天天气很好我们出去。明天可能会下雨请带伞。" * 2])[0]
    assert chunks[0].text == "今天天气很好我们出去。"


def test_each_chunk_repeats_the_end_of_the_one_before_from_a_word_on() -> None:
    words = [f"word{number:03d}" for number in range(200)]
    chunks = ApproximateChunker(40, 8).chunk([" ".join(words)])[0]
    for before, after in itertools.pairwise(chunks):
        shared = set(before.text.split()) & set(after.text.split())
        assert shared
        assert sum(len(word) + 1 for word in shared) <= 8 * 2.5
        assert after.text.split()[0] in words


def test_a_large_text_is_cut_whole() -> None:
    text = "All work and no play makes Jack a dull boy. " * 25_000
    chunks = ApproximateChunker(1000, 100).chunk([text])[0]
    assert sum(len(chunk.text) for chunk in chunks) >= len(text.strip()) - len(chunks)
    assert all(chunk.text.startswith(("All", "work", "and")) or " " in chunk.text for chunk in chunks)


def test_the_id_changes_with_every_parameter() -> None:
    ids = {
        ApproximateChunker(*parameters).chunker_id
        for parameters in [(100, 10), (101, 10), (100, 11), (100, 10, 3.0)]
    }
    assert len(ids) == 4


def test_a_gap_longer_than_a_chunk_repeats_nothing() -> None:
    (chunks,) = ApproximateChunker(10, 4).chunk(["a" * 18 + " two" + " " * 100 + "three"])
    assert [chunk.text for chunk in chunks] == ["a" * 18 + " two", "three"]


def test_an_overlap_of_more_than_half_still_advances() -> None:
    pieces = [chunk.text for chunk in ApproximateChunker(10, 8).chunk(["a" * 13 + " " + "b" * 30])[0]]
    assert pieces[0] == "a" * 13 + " " + "b" * 11
    assert len(pieces) < 10
    assert pieces[-1].endswith("b" * 20)


@pytest.mark.parametrize(("max_tokens", "bytes_per_token"), [(990, 4.6), (1915, 1.4)])
def test_rounding_does_not_break_the_limit(max_tokens: int, bytes_per_token: float) -> None:
    chunks = ApproximateChunker(max_tokens, 0, bytes_per_token).chunk(["a" * 20_000])[0]
    assert max(chunk.tokens for chunk in chunks) <= max_tokens


@pytest.mark.parametrize(("max_tokens", "overlap"), [(10, 10), (10, 9), (1, 0), (10, -1)])
def test_parameters_that_cannot_advance_are_refused(max_tokens: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        ApproximateChunker(max_tokens, overlap)


def test_estimates_round_up_and_count_bytes() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("ab") == 1
    assert estimate_tokens("abc") == 2
    assert estimate_tokens("中") == 2
