"""The baseline of providers: kept, compared, and what a router starts from."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from ray_app.baseline import (
    Baseline,
    ProviderMeasurement,
    baseline_path,
    load_baseline,
    regressions,
    save_baseline,
    starting_speeds,
)
from ray_app.errors import ConfigError, DependencyError

LOCAL = ProviderMeasurement("local-cpu", "model", "space1", 500, 40_000, 10.0, 20.0, 0.0, 0.0, 0.97, 0.997)
GATEWAY = ProviderMeasurement("gateway", "other", "space2", 900, 70_000, 80.0, 200.0, None, None)
BASELINE = Baseline("2026-11-23T12:00:00+0000", "a CPU, 2 cores, cpu", (LOCAL, GATEWAY))


def changed(**changes: float | str) -> Baseline:
    return replace(BASELINE, providers=(replace(LOCAL, **changes), GATEWAY))


def test_a_saved_baseline_is_loaded_as_it_was(tmp_path: Path) -> None:
    assert load_baseline(tmp_path) is None
    path = save_baseline(tmp_path, BASELINE)
    assert path == baseline_path(tmp_path)
    assert load_baseline(tmp_path) == BASELINE
    save_baseline(tmp_path, changed(p50_ms=1.0))
    assert load_baseline(tmp_path) == changed(p50_ms=1.0)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"providers": 1}', b"\xff", b"[]"])
def test_a_file_that_is_no_baseline_is_refused_and_starts_no_router(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    save_baseline(tmp_path, BASELINE).write_bytes(content)
    with pytest.raises(ConfigError, match=r"providers\.json"):
        load_baseline(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert starting_speeds(tmp_path) == {}
    assert "providers.json" in caplog.text


def test_a_baseline_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").write_text("in the way")
    with pytest.raises(DependencyError, match="Saving the baseline"):
        save_baseline(tmp_path, BASELINE)


def test_a_router_starts_from_the_speeds_measured(tmp_path: Path) -> None:
    assert starting_speeds(tmp_path) == {}
    save_baseline(tmp_path, BASELINE)
    assert starting_speeds(tmp_path) == {("local-cpu", "space1"): 40_000, ("gateway", "space2"): 70_000}


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (BASELINE, []),
        (changed(texts_per_second=401, p50_ms=11.9), []),
        (changed(texts_per_second=5000, p50_ms=1.0), []),
        (changed(texts_per_second=399), [("local-cpu", "texts/s", 500, 399)]),
        (changed(p50_ms=12.1), [("local-cpu", "ms", 10, 12.1)]),
        (changed(texts_per_second=1, space_id="space9"), []),
        (replace(changed(texts_per_second=1), machine="another"), []),
    ],
)
def test_a_fifth_worse_is_a_regression(now: Baseline, found: list[tuple[str, str, float, float]]) -> None:
    assert [
        (item.provider, item.measure, item.before, item.now) for item in regressions(BASELINE, now)
    ] == found


def test_a_regression_reads_as_a_sentence() -> None:
    worse = list(regressions(BASELINE, changed(texts_per_second=250, p50_ms=15)))
    assert [str(item) for item in worse] == [
        "local-cpu: 250.0 texts/s, 50% fewer than in the last baseline (500.0).",
        "local-cpu: 15.0 ms, 50% slower than in the last baseline (10.0).",
    ]
