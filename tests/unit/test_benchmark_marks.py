"""The arithmetic of the scale and million benchmarks."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.benchmark.lines import Samples
from jobs.benchmark.marks import Mark, rates, steady_rate
from jobs.benchmark.million import PIECES, check_disk, flatness, pieces
from jobs.benchmark.processor import kind_of
from jobs.benchmark.scale import Run, details
from ray_app.errors import InputError
from ray_app.planning import Rates, Survey, estimate


@given(
    st.integers(1, 8),
    st.integers(4, 40),
    st.floats(0.1, 10),
    st.booleans(),
    st.floats(0, 0.4),
)
def test_the_steady_rate_is_that_of_the_encoders(
    encoders: int, rounds: int, latency: float, at_once: bool, late: float
) -> None:
    """Whether they finish all at once or one after another, and however late the writer was there."""
    starts = [0.0 if at_once else latency * number / encoders for number in range(encoders)]
    ends = [start + latency * turn for start in starts for turn in range(1, rounds + 1)]
    writer = late * latency * rounds
    marks = [Mark(at, 200) for at in sorted(max(end, writer) for end in ends)]
    assert steady_rate(marks, encoders) == pytest.approx(encoders * 200 / latency, rel=0.02)


def test_too_few_ranges_have_no_steady_rate() -> None:
    with pytest.raises(ValueError, match="too few"):
        steady_rate([Mark(at, 200) for at in range(8)], 4)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 500)), min_size=2).map(sorted))
def test_rates_count_every_row_after_the_first_mark(found: list[tuple[float, int]]) -> None:
    marks = [Mark(at + number, rows) for number, (at, rows) in enumerate(found)]
    span = (marks[-1].at - marks[0].at) / PIECES
    assert sum(rates(marks, PIECES)) * span == pytest.approx(sum(mark.rows for mark in marks[1:]))


def test_efficiency_compares_the_nodes_rates_with_the_first_count() -> None:
    of_a_node = {"1": Samples((100.0, 110.0, 90.0)), "4": Samples((90.0, 99.0, 81.0))}
    runs = [Run(nodes, 800, 0.0, start, 0.5) for nodes, start in ((1, 5.0), (1, 7.0), (4, 9.0))]
    curve = details([1, 4], of_a_node, runs)
    assert curve["rows_per_second"] == [100, 360]
    assert curve["efficiency"] == [1, 0.9]
    assert curve["start_seconds"] == [6, 9]


def test_samples_fall_into_their_spans() -> None:
    marks = [Mark(100, 1), Mark(200, 1)]
    times = [50, *range(100, 200, 5), 250]
    medians = pieces(marks, times, [float(at) for at in times])
    assert medians == [102.5 + 10 * piece for piece in range(PIECES)], "those outside are left out"
    assert flatness(medians) == pytest.approx((182.5 + 192.5) / (122.5 + 132.5))
    assert math.isnan(pieces(marks, [100], [1.0])[5])


def test_too_little_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    check_disk(tmp_path, 1)
    with pytest.raises(InputError, match="rows need about") as refusal:
        check_disk(tmp_path, 10**12)
    assert "TMPDIR" in str(refusal.value.hint)


@given(st.integers(1, 5_000), st.integers(0, 10**6), st.integers(1, 1000))
def test_an_estimate_grows_with_the_rows(looked_at: int, tokens: int, times: int) -> None:
    survey = Survey(rows=looked_at, to_embed=looked_at, tokens=tokens)
    rates_ = Rates("gateway", tokens_per_second=1000.0, measured=True, per_million_tokens=Decimal("0.02"))
    whole = estimate(survey, looked_at * times, rates_)
    assert (whole.to_embed, whole.tokens) == (looked_at * times, tokens * times)
    assert whole.cost == Decimal("0.02") * tokens * times / 1_000_000
    assert whole.seconds == pytest.approx(tokens * times / 1000, abs=0.051)


def test_a_table_without_rows_costs_nothing() -> None:
    nothing = estimate(Survey(), 1000, Rates("stub", 1.0, False, Decimal(1)))
    assert (nothing.to_embed, nothing.tokens, nothing.cost) == (0, 0, 0)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("ray::MapWorker(MapBatches(EncodeStage))", "encoder"),
        ("ray::MapWorker(MapBatches(WriteStage))", "writer"),
        ("ray::VectorOwner", "vector store"),
        ("ray::IDLE", "readers"),
        ("python -m jobs.backfill --tenant acme", "driver"),
        ("postgres: rowbeam rowbeam [local] idle", "database"),
        ("/lib/ray/core/src/ray/raylet/raylet --raylet_socket_name=/tmp/s", "Ray itself"),
    ],
)
def test_a_process_is_told_by_its_command_line(command: str, kind: str) -> None:
    assert kind_of(command) == kind
