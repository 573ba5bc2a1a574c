"""Words and their weights."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.store.words import AVERAGE_WORDS, document_vector, query_vector, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The login FAILS, again!", "the login fails again"),
        ("Straße É E\u0301COLE ﬁle", "strasse é école file"),
        ("parse_config", "parse_config parse config"),
        ("getHTTPResponse2", "gethttpresponse2 get http response 2"),
        ("api.Client.send_all", "api.client.send_all api client send_all send all"),
        ("ABC-123: v1.16", "abc-123 abc 123 v1.16 v1 v 1 16"),
        ("utf8, UTF-8", "utf8 utf 8 utf-8 utf 8"),
        ("__init__ _ __ -- ... _._", "init"),
        ("da39a3ee5e6b4b0d3255bfef", "da39a3ee5e6b4b0d3255bfef"),
        ("हिन्दी में", "हिन्दी में"),
        ("検索エンジン、ok 中", "検索 索エ エン ンジ ジン ok 中"),
        ("검색을", "검색 색을"),
        ("", ""),
        ("?! \x00 🎉", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert list(words(text)) == expected.split()


def test_a_query_word_counts_once_and_a_document_word_by_its_frequency() -> None:
    query, document = query_vector("to be or not to be"), document_vector("to be or not to be")
    assert query is not None
    assert document is not None
    assert query.weights == [1.0] * 4
    assert query.indices == document.indices
    once, twice = sorted(set(document.weights))
    assert Counter(document.weights) == {once: 2, twice: 2}
    # k1 = 1.2, b = 0.75, and a document of 6 words.
    norm = 1.2 * (0.25 + 0.75 * 6 / AVERAGE_WORDS)
    assert (once, twice) == (pytest.approx(2.2 / (1 + norm)), pytest.approx(4.4 / (2 + norm)))


def test_numbers_are_the_same_in_every_process() -> None:
    """A stored vector is searched by other processes and releases: these are CRC-32 of the words."""
    vector = query_vector("123456789 login")
    assert vector is not None
    assert vector.indices == sorted([0xCBF43926, 0xAA08CB10])


def test_words_that_share_a_number_are_added_up() -> None:
    # A known pair of English words with the same CRC-32.
    vector = query_vector("plumless buckeroo")
    assert vector is not None
    assert vector.weights == [2.0]


def test_no_words_no_vector() -> None:
    assert document_vector("...") is None
    assert query_vector(" ") is None


@given(st.text())
def test_any_text_gives_a_vector_that_an_engine_takes(text: str) -> None:
    for vector in (document_vector(text), query_vector(text)):
        if vector is not None:
            assert all(a < b for a, b in zip(vector.indices, vector.indices[1:], strict=False))
            assert all(0 <= index < 2**32 for index in vector.indices)
            assert all(0 < weight < 2.2 * len(text) for weight in vector.weights)


@given(st.text(), st.text())
def test_a_text_is_found_by_any_of_its_own_words(text: str, other: str) -> None:
    document = document_vector(f"{other} {text}")
    query = query_vector(text)
    if query is not None:
        assert document is not None
        assert set(query.indices) <= set(document.indices)
