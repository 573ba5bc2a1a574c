"""The plot: how far each line is beyond its target, or short of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jobs.benchmark.lines import Line

_COLOURS: Final = {"met": "#3a7d44", "missed": "#b23a48"}


def shares(lines: Sequence[Line]) -> list[tuple[str, float, str]]:
    """(label, value as a share of its target, verdict) of each line that was measured; 1 is the target.

    Where less is better it is target to value, so that longer bars are always better.
    """
    bars: list[tuple[str, float, str]] = []
    for line in lines:
        if line.value is None:
            continue
        share = line.value / line.target.bound
        if not line.target.at_least:
            share = 1 / share if share > 0 else float("inf")
        bars.append((f"{line.what}\nagainst {line.against}", share, line.verdict))
    return bars


def draw(lines: Sequence[Line], path: Path) -> str:
    """Write the plot as PNG; answers what to tell about it. Without matplotlib there is none."""
    bars = shares(lines)
    if not bars:
        return "Plot: none, because nothing was measured."
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "Plot: none, because matplotlib is not installed (pip install matplotlib)."
    figure = Figure(figsize=(9, 1.2 + 0.55 * len(bars)), layout="constrained")
    axes = figure.subplots()
    labels, values, verdicts = zip(*bars, strict=True)
    # A re-run is hundreds of times faster than its target asks; the others would be slivers beside it.
    limit = 3.0
    axes.barh(labels, [min(value, limit) for value in values], color=[_COLOURS[name] for name in verdicts])
    for place, value in enumerate(values):
        axes.annotate(f" {value:.2f}", (min(value, limit), place), va="center", fontsize=8)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlim(0, limit * 1.1)
    axes.set_xlabel("value as a share of its target (1 = met)")
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return f"Plot: {path}"
