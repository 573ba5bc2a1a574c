"""Vectors in an answer: exact in either encoding, and short."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ray_app.api.vectors import cut_vectors, encode_answer
from ray_app.encoders.stub import STUB_SPACE

ROWS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@given(ROWS)
def test_every_float32_comes_back_bit_by_bit(vectors: np.ndarray) -> None:
    plain = json.loads(encode_answer(vectors, model="m", tokens=1, encoding="float"))
    rows = np.array([item["embedding"] for item in plain["data"]], dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(rows, vectors)
    packed = json.loads(encode_answer(vectors, model="m", tokens=1, encoding="base64"))
    raw = b"".join(base64.b64decode(item["embedding"]) for item in packed["data"])
    assert raw == vectors.astype("<f4").tobytes()


def test_usual_numbers_are_written_with_nine_digits_at_most() -> None:
    vectors = np.random.default_rng(7).standard_normal((50, STUB_SPACE.dimensions)).astype(np.float32)
    answer = encode_answer(vectors, model="m", tokens=1, encoding="float").decode()
    for number in re.findall(r"-?\d+\.\d+", answer):
        assert len(number.replace("-", "").replace(".", "").lstrip("0")) <= 9


@given(ROWS, st.integers(1, 6))
def test_cut_rows_have_unit_length_or_none(vectors: np.ndarray, size: int) -> None:
    size = min(size, vectors.shape[1])
    unit = vectors.astype(np.float64)
    lengths = np.linalg.norm(unit, axis=1, keepdims=True)
    unit = (unit / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    cut = cut_vectors(unit, size)
    assert cut.shape == (len(vectors), size)
    for row in np.linalg.norm(cut.astype(np.float64), axis=1):
        assert row == pytest.approx(1, abs=1e-5) or row <= 1
