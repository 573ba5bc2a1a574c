"""Agreement of two encoders, against the slow and obvious way to compute it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.encoders import agreement as module
from ray_app.encoders.agreement import agreement, mean_cosine
from ray_app.encoders.port import FloatArray


def rows(count: int, seed: int, dimensions: int = 8) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)


def neighbours(vectors: FloatArray, row: int, k: int) -> set[int]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    others = [place for place in range(len(vectors)) if place != row]
    return set(sorted(others, key=lambda place: -float(unit[row] @ unit[place]))[:k])


@given(st.integers(3, 30), st.integers(1, 12), st.floats(0, 2), st.integers(0, 1000))
def test_it_is_the_mean_share_of_common_neighbours(count: int, k: int, noise: float, seed: int) -> None:
    k = min(k, count - 1)
    reference = rows(count, seed)
    ours = (reference + noise * rows(count, seed + 1)).astype(np.float32)
    expected = np.mean(
        [len(neighbours(ours, row, k) & neighbours(reference, row, k)) / k for row in range(count)]
    )
    assert agreement(ours, reference, k) == pytest.approx(expected)


def test_rows_are_compared_in_blocks_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = rows(50, 1)
    ours = reference + rows(50, 2) / 3
    whole = agreement(ours, reference)
    monkeypatch.setattr(module, "_BLOCK", 7)
    assert agreement(ours, reference) == whole
    assert 0.3 < whole < 1


@given(st.integers(0, 1000))
def test_length_does_not_matter(seed: int) -> None:
    reference = rows(20, seed)
    lengths = np.random.default_rng(seed).uniform(0.1, 9, (20, 1)).astype(np.float32)
    assert agreement(reference * lengths, reference) == 1
    assert mean_cosine(reference * lengths, reference) == pytest.approx(1, abs=1e-6)


def test_mean_cosine() -> None:
    ours = np.array([[1, 0], [0, 2], [1, 1]], np.float32)
    reference = np.array([[3, 0], [0, -1], [1, 0]], np.float32)
    assert mean_cosine(ours, reference) == pytest.approx((1 - 1 + 0.5**0.5) / 3)


def test_arrays_that_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="3 rows cannot be compared with 4"):
        agreement(rows(3, 0), rows(4, 0), k=1)
    with pytest.raises(ValueError, match="no 10 nearest"):
        agreement(rows(10, 0), rows(10, 0))
    with pytest.raises(ValueError, match="mean cosine"):
        mean_cosine(rows(3, 0), rows(3, 0, dimensions=4))
    with pytest.raises(ValueError, match="mean cosine"):
        mean_cosine(rows(0, 0), rows(0, 0))
