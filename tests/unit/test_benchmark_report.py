"""The benchmark's table: verdicts, turns, the record and the plot."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jobs.benchmark import plot, report
from jobs.benchmark.gpu import covered
from jobs.benchmark.lines import Line, Samples, Target, in_turns, ratio

FAST = Line(
    "encoder",
    "peer",
    Target(3.0),
    3.5,
    measure="texts/s",
    ours=Samples((700.0, 690.0, 710.0)),
    peer=Samples((200.0, 198.0, 204.0)),
    details={"batch": 8},
)
SLOW = Line("bulk", "the bare encoder", Target(0.9), 0.6, note="start took 9 s")
LATE = Line("HTTP", "the bare call", Target(5.0, at_least=False), 10.0, unit="ms")
UNKNOWN = Line("GPU", "peer", Target(1.5), None, note="no CUDA device")
ALL = [FAST, SLOW, LATE, UNKNOWN]


@pytest.mark.parametrize(
    ("value", "target", "verdict"),
    [
        (3.3, Target(3.3), "met"),
        (3.29, Target(3.3), "missed"),
        (5.0, Target(5.0, at_least=False), "met"),
        (5.1, Target(5.0, at_least=False), "missed"),
        (0.0, Target(1.0, at_least=False), "met"),
        (None, Target(1.0), "not measured"),
    ],
)
def test_a_verdict_follows_from_value_and_target(value: float | None, target: Target, verdict: str) -> None:
    assert Line("what", "peer", target, value).verdict == verdict


def test_competitors_take_turns_and_every_other_round_runs_backwards() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return float(len(order))

    samples = in_turns({"ours": lambda: run("ours"), "peer": lambda: run("peer")}, 3)
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert samples == {"ours": Samples((1, 4, 5)), "peer": Samples((2, 3, 6))}


def test_a_ratio_compares_the_runs_of_a_round() -> None:
    """The second round met a busy machine: both were slow, and it tells as much as the others."""
    assert ratio(Samples((300, 30, 320)), Samples((100, 10, 100))) == 3.0


def test_the_table_shows_every_line_with_its_target_and_verdict() -> None:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(report.table(ALL))
    rows = {words[0]: " ".join(words) for line in captured.get().splitlines() if (words := line.split())}
    assert rows["encoder"] == "encoder peer 700 ±1% texts/s 200 ±2% texts/s 3.50 x ≥ 3 x met"
    assert rows["bulk"] == "bulk the bare encoder 0.600 x ≥ 0.9 x missed"
    assert rows["HTTP"] == "HTTP the bare call 10.00 ms ≤ 5 ms missed"
    assert rows["GPU"] == "GPU peer ≥ 1.5 x not measured"
    assert report.notes(ALL) == ["bulk: start took 9 s", "GPU: no CUDA device"]


def test_the_record_says_what_was_measured_on_what(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    report.write_record(report.record(ALL, command="python -m jobs.benchmark", failed=["http"]), path)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["command"] == "python -m jobs.benchmark"
    assert found["failed_parts"] == ["http"]
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["versions"]["ray"].startswith("2.")
    assert [line["verdict"] for line in found["lines"]] == ["met", "missed", "missed", "not measured"]
    assert [Line.from_record(line) for line in found["lines"]] == ALL


@pytest.mark.parametrize(
    ("lines", "failed", "status"),
    [([FAST], [], 0), ([FAST, UNKNOWN], [], 0), ([], [], 0), ([FAST, SLOW], [], 1), ([FAST], ["http"], 1)],
)
def test_only_a_missed_target_or_a_broken_part_fails(
    lines: list[Line], failed: list[str], status: int
) -> None:
    assert report.exit_status(lines, failed) == status


def test_bars_are_shares_of_the_target_and_longer_is_better() -> None:
    shares = [(round(share, 3), verdict) for _, share, verdict in plot.shares(ALL)]
    assert shares == [(1.167, "met"), (0.667, "missed"), (0.5, "missed")]
    nothing = Line("HTTP", "the bare call", Target(5.0, at_least=False), 0.0)
    assert plot.shares([nothing])[0][1] == float("inf")


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "plot.png"
    infinite = Line("HTTP", "the bare call", Target(5.0, at_least=False), 0.0)
    assert plot.draw([*ALL, infinite], path) == f"Plot: {path}"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_anything_to_draw_there_is_no_plot(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    assert "nothing was measured" in plot.draw([UNKNOWN], path)
    assert not path.exists()


def test_without_matplotlib_the_plot_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "matplotlib is not installed" in plot.draw(ALL, tmp_path / "plot.png")


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10)), max_size=20))
def test_time_in_kernels_counts_overlaps_once(spans: list[tuple[int, int]]) -> None:
    ticks = {tick for start, length in spans for tick in range(start, start + length)}
    assert covered((float(start), float(start + length)) for start, length in spans) == len(ticks)
