from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ray_app.providers.batching import RequestLimits, cut

sizes = st.lists(st.integers(0, 50), max_size=60)
limits = st.builds(RequestLimits, st.integers(1, 20), st.integers(1, 100))


@given(sizes, limits)
def test_runs_cover_every_position_once_and_in_order(sizes: list[int], limits: RequestLimits) -> None:
    assert [position for run in cut(sizes, limits) for position in run] == list(range(len(sizes)))


@given(sizes, limits)
def test_every_run_is_admitted(sizes: list[int], limits: RequestLimits) -> None:
    for run in cut(sizes, limits):
        assert len(run) > 0
        assert limits.admits([sizes[position] for position in run])


@given(sizes, limits)
def test_no_run_could_have_taken_the_text_after_it(sizes: list[int], limits: RequestLimits) -> None:
    runs = cut(sizes, limits)
    for run in runs[:-1]:
        assert not limits.admits([sizes[position] for position in range(run.start, run.stop + 1)])


@given(limits, st.none() | st.integers(-5, 50), st.none() | st.integers(-5, 200))
def test_lowering_never_raises_a_limit_nor_reaches_zero(
    limits: RequestLimits, max_inputs: int | None, max_tokens: int | None
) -> None:
    lowered = limits.lowered(max_inputs=max_inputs, max_tokens=max_tokens)
    assert 1 <= lowered.max_inputs <= limits.max_inputs
    assert 1 <= lowered.max_tokens <= limits.max_tokens
    if max_inputs is not None:
        assert lowered.max_inputs <= max(1, max_inputs)
    if max_tokens is not None:
        assert lowered.max_tokens <= max(1, max_tokens)


def test_a_text_above_the_token_limit_goes_alone() -> None:
    assert cut([1, 99, 1, 1], RequestLimits(10, 5)) == [range(1), range(1, 2), range(2, 4)]


def test_examples() -> None:
    assert cut([], RequestLimits(3, 10)) == []
    assert cut([1] * 7, RequestLimits(3, 10)) == [range(3), range(3, 6), range(6, 7)]
    assert cut([4, 4, 4], RequestLimits(3, 8)) == [range(2), range(2, 3)]
