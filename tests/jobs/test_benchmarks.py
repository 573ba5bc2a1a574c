"""The scale and million benchmarks, small: that they measure, not how fast."""

from __future__ import annotations

import argparse

import psutil
import pytest

from jobs.benchmark import million, scale

pytestmark = pytest.mark.ray


def test_a_job_on_two_nodes() -> None:
    args = argparse.Namespace(nodes=[2], rounds=1, latency_ms=20, ranges=4)
    (line,) = scale.lines(args)
    assert line.ours is not None
    assert line.value == 1, "the only number of nodes is compared with itself"
    assert line.details["rows_per_second"] == [pytest.approx(line.ours.median * 2, abs=0.1)]
    ours = psutil.Process().children(recursive=True)
    assert not [process for process in ours if "raylet" in process.name()], "the cluster is gone"


def test_a_million_in_small() -> None:
    args = argparse.Namespace(rows=3000, speed_rows=0, model="stub")
    memory, speed, plan = million.lines(args)
    assert memory.details["rows"] == 3000
    assert len(memory.details["job_mib"]) == len(speed.details["rows_per_second"]) == 10
    assert plan.value == 1.0, "a plan of so small a table looks at every row"
    costs = {(cost["model"], cost["rows"]): cost for cost in plan.details["costs_per_million_rows"]}
    assert costs["stub", 1_000_000]["dollars"] == 0
    small, large = (costs[f"text-embedding-3-{size}", 10_000_000]["dollars"] for size in ("small", "large"))
    assert large == pytest.approx(small * 6.5), "as their prices are"
