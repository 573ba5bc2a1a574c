"""What the HTTP benchmark makes of answers and times."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.benchmark.http_load import Endpoint, Load, WrongAnswer, percentile, vectors_of
from jobs.benchmark.wire import Wire, WireAnswer

ENDPOINT = Endpoint("it", "http://127.0.0.1:9", "/v1/embeddings", "m", 3)
VECTORS = [[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]]


def answer(embeddings: list[Any], status: int = 200) -> WireAnswer:
    data = [{"object": "embedding", "index": place, "embedding": it} for place, it in enumerate(embeddings)]
    return WireAnswer(status, {}, json.dumps({"object": "list", "data": data[::-1]}).encode())


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 1))
def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(
    values: list[float], share: float
) -> None:
    found = percentile(sorted(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_of_nothing_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_rates_count_every_text_over_the_whole_time() -> None:
    load = Load(texts=100, seconds=(0.25, 0.5, 0.5, 1.0), duration=2.0)
    assert (load.requests_per_second, load.texts_per_second) == (2.0, 200.0)
    assert (load.percentile(0.5), load.percentile(0.99)) == (500.0, 1000.0)


def test_vectors_come_in_the_order_of_the_texts_from_numbers_and_from_base64() -> None:
    packed = [base64.b64encode(np.array(it, "<f4").tobytes()).decode() for it in VECTORS]
    for given_as in (VECTORS, packed):
        found = vectors_of(ENDPOINT, answer(list(given_as)), 2)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, VECTORS, rtol=1e-6)


@pytest.mark.parametrize(
    ("got", "texts", "words"),
    [
        (answer(VECTORS, status=503), 2, "503"),
        (answer(VECTORS), 3, "3 texts with 2 vectors"),
        (answer([[1.0, 0.0], [0.0, 1.0]]), 2, r"of \{2\}"),
        (answer([[1.0, 0.0, 0.0], [0.0, 6.0, 8.0]]), 2, "length is not 1"),
        (answer([[float("nan"), 0.0, 0.0]]), 1, "length is not 1"),
    ],
)
def test_a_wrong_answer_is_no_answer(got: WireAnswer, texts: int, words: str) -> None:
    with pytest.raises(WrongAnswer, match=words):
        vectors_of(ENDPOINT, got, texts)


def test_a_request_is_whole_http_and_names_a_key_only_where_there_is_one() -> None:
    body = ENDPOINT.body(["ä"])
    for key, line in ((None, False), ("k", True)):
        head, _, content = (
            Wire("http://127.0.0.1:9", key).request("/v1/embeddings", body).partition(b"\r\n\r\n")
        )
        assert json.loads(content) == {"model": "m", "input": ["ä"], "encoding_format": "float"}
        assert f"content-length: {len(content)}".encode() in head.split(b"\r\n")
        assert (b"authorization: Bearer k" in head.split(b"\r\n")) is line
