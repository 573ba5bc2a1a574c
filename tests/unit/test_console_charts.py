"""Plots as geometry: nothing is drawn outside, and bars say what the figures are."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.console.charts import COLOURS, WIDTH, Chart, Lying, days_chart, lying_chart, nice_top
from ray_app.console.formats import short

FIRST = date(2026, 11, 1)
amounts_of_days = st.dictionaries(
    st.integers(0, 29).map(lambda day: FIRST + timedelta(days=day)),
    st.dictionaries(st.sampled_from(["gateway", "local-cpu", "stub"]), st.floats(0, 1e12)),
)


def check_inside(chart: Chart) -> None:
    for bar in chart.bars:
        assert bar.x >= 0
        assert bar.y >= 0
        assert bar.width > 0
        assert bar.height >= 0
        assert bar.x + bar.width <= WIDTH
        assert bar.y + bar.height <= chart.height + 0.1
        assert 0 <= bar.colour < COLOURS


@given(amounts_of_days)
def test_every_amount_is_a_piece_as_high_as_it_is_large(amounts: dict[date, dict[str, float]]) -> None:
    last = FIRST + timedelta(days=29)
    chart = days_chart("Tokens", amounts, FIRST, last, short)
    check_inside(chart)
    drawn = [amount for day in amounts.values() for amount in day.values() if amount > 0]
    assert len(chart.bars) == len(drawn)
    assert chart.empty == (not drawn)
    if drawn:
        top = nice_top(max(sum(day.values()) for day in amounts.values()))
        heights = sum(bar.height for bar in chart.bars)
        assert heights == pytest.approx(110 * sum(drawn) / top, abs=0.02 * len(drawn))


def test_pieces_of_a_day_stand_on_each_other() -> None:
    chart = days_chart("Cost", {FIRST: {"a": 1.0, "b": 3.0}}, FIRST, FIRST, short)
    low, high = chart.bars
    assert low.y == pytest.approx(high.y + high.height)
    assert high.height == pytest.approx(3 * low.height)
    assert (low.title, chart.legend) == ("2026-11-01, a: 1", ("a", "b"))
    assert [label.text for label in chart.right_labels] == ["0", "2.5", "5", "01 Nov"]


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=12))
def test_lying_bars_are_as_long_as_their_values(values: list[float]) -> None:
    chart = lying_chart("Speed", [Lying(str(place), value, "x") for place, value in enumerate(values)])
    check_inside(chart)
    longest = max(bar.width for bar in chart.bars)
    assert chart.bars[values.index(max(values))].width == longest
    # Room for a number of eight digits behind the longest.
    assert all(label.x <= WIDTH - 70 for label in chart.left_labels)


@given(st.floats(1e-12, 1e15))
def test_an_axis_ends_a_little_above_its_largest_value(value: float) -> None:
    top = nice_top(value)
    assert value <= top * (1 + 1e-9) <= 2.6 * value
