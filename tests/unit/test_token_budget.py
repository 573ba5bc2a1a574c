"""Batches by tokens, and bisecting a batch that fails."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ray_app.encoders.batching import BatchBudget, Failure, budget_batches, run_bisecting, unit_rows
from ray_app.encoders.port import FloatArray
from ray_app.errors import ProviderUnavailable

# Small enough that a batch often fills its budget to the last token.
lengths = st.lists(st.integers(0, 12), max_size=60)
budgets = st.builds(BatchBudget, st.integers(1, 60), st.integers(1, 8))


@given(lengths, budgets)
def test_batches_hold_every_text_once_within_the_budget(sizes: list[int], budget: BatchBudget) -> None:
    batches = budget_batches(sizes, budget)
    assert sorted(place for batch in batches for place in batch) == list(range(len(sizes)))
    for batch in batches:
        padded = max(sizes[place] for place in batch) * len(batch)
        assert len(batch) == 1 or (padded <= budget.max_tokens and len(batch) <= budget.max_texts)


@given(lengths, budgets)
def test_batches_come_longest_first_and_are_full(sizes: list[int], budget: BatchBudget) -> None:
    batches = budget_batches(sizes, budget)
    order = [sizes[place] for batch in batches for place in batch]
    assert order == sorted(sizes, reverse=True)
    for batch, following in pairwise(batches):
        grown = len(batch) + 1
        padded = sizes[batch[0]] * grown
        assert grown > budget.max_texts or padded > budget.max_tokens, (batch, following)


@pytest.mark.parametrize(("max_tokens", "max_texts"), [(0, 1), (1, 0)])
def test_an_empty_budget_is_refused(max_tokens: int, max_texts: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        BatchBudget(max_tokens, max_texts)


@given(size=st.integers(1, 100), data=st.data())
def test_bisecting_finds_exactly_the_texts_at_fault(size: int, data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.integers(0, size - 1)))
    calls = 0

    def forward(positions: list[int]) -> FloatArray:
        nonlocal calls
        calls += 1
        if poison.intersection(positions):
            raise RuntimeError("the text itself must not get into an error")
        return np.array([[place] for place in positions], np.float32)

    failed, done = [], []
    for positions, outcome in run_bisecting(list(range(size)), forward):
        if isinstance(outcome, Failure):
            assert outcome.reason == "RuntimeError"
            failed += positions
        else:
            assert outcome[:, 0].tolist() == positions
            done += positions
    assert set(failed) == poison
    assert sorted(failed + done) == list(range(size))
    assert calls <= 1 + 2 * len(poison) * math.ceil(math.log2(size) if size > 1 else 0)


def test_errors_that_are_not_about_a_text_pass_through() -> None:
    def forward(positions: list[int]) -> FloatArray:
        raise ProviderUnavailable("down")

    with pytest.raises(ProviderUnavailable):
        list(run_bisecting([0, 1], forward))


@given(hnp.arrays(np.float32, (5, 7), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_rows_become_unit_vectors(vectors: FloatArray) -> None:
    unit, bad = unit_rows(vectors)
    assert unit.dtype == np.float32
    for row in range(5):
        length = float(np.linalg.norm(unit[row].astype(np.float64)))
        assert (row in bad) == (not vectors[row].any())
        assert length == pytest.approx(0 if row in bad else 1, abs=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_have_no_direction(value: float) -> None:
    vectors = np.ones((3, 4), np.float32)
    vectors[1, 2] = value
    unit, bad = unit_rows(vectors)
    assert bad == [1]
    assert not unit[1].any()
    assert np.isfinite(unit).all()
