"""What each configured provider did when it was last measured: where the router starts from.

``rowbeam bench providers`` writes it to ``benchmarks/providers.json`` under ``ROWBEAM_HOME``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from ray_app.errors import ConfigError, DependencyError
from ray_app.stack.files import os_errors_as, private_folder, write_private

#: A change for the worse by more than this share is worth a warning.
TOLERANCE: Final = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProviderMeasurement:
    """One provider of one space, as measured on this machine."""

    #: ``local-cpu``, ``local-gpu``, ``gateway`` or ``stub``.
    name: str
    model: str
    space_id: str
    texts_per_second: float
    tokens_per_second: float
    #: Milliseconds for one short text, alone: half of them, and 95 in 100, took no longer.
    p50_ms: float
    p95_ms: float
    #: US dollars; None when the price is unknown. What a machine costs is not counted.
    dollars_per_million_tokens: float | None
    #: For a million rows like the texts measured with.
    dollars_per_million_rows: float | None
    #: With the model in 32 bits, where it serves the same space: the share of each text's 10 nearest
    #: others that both name, and the mean cosine.
    top_10_agreement: float | None = None
    mean_cosine: float | None = None


@dataclass(frozen=True)
class Baseline:
    """Every provider's latest measurement, taken ``measured`` (ISO 8601) on ``machine``."""

    measured: str
    #: CPU, cores and GPU: figures of another machine say nothing about this one.
    machine: str
    providers: tuple[ProviderMeasurement, ...]

    def find(self, name: str, space_id: str) -> ProviderMeasurement | None:
        return next((item for item in self.providers if (item.name, item.space_id) == (name, space_id)), None)


@dataclass(frozen=True)
class Regression:
    """A provider that became worse by more than ``TOLERANCE``."""

    provider: str
    #: ``texts/s``, or ``ms``, the median latency.
    measure: str
    before: float
    now: float

    def __str__(self) -> str:
        change = abs(self.now / self.before - 1)
        worse = "slower" if self.measure == "ms" else "fewer"
        now = f"{self.provider}: {_figure(self.now)} {self.measure}"
        return f"{now}, {change:.0%} {worse} than in the last baseline ({_figure(self.before)})."


def regressions(before: Baseline, now: Baseline, tolerance: float = TOLERANCE) -> Iterator[Regression]:
    """What became worse by more than ``tolerance``; nothing when the machines differ."""
    if before.machine != now.machine:
        return
    for item in now.providers:
        old = before.find(item.name, item.space_id)
        if old is None:
            continue
        if item.texts_per_second < old.texts_per_second * (1 - tolerance):
            yield Regression(item.name, "texts/s", old.texts_per_second, item.texts_per_second)
        if item.p50_ms > old.p50_ms * (1 + tolerance):
            yield Regression(item.name, "ms", old.p50_ms, item.p50_ms)


def baseline_path(home: Path) -> Path:
    return home / "benchmarks" / "providers.json"


def load_baseline(home: Path) -> Baseline | None:
    """The last baseline; None when there is none.

    Raises:
        ConfigError: the file cannot be read, or is not one.
    """
    path = baseline_path(home)
    try:
        return _BASELINE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"{path} cannot be read as a baseline of providers ({type(error).__name__}).",
            hint="Delete it and measure again: rowbeam bench providers.",
        ) from error


def save_baseline(home: Path, baseline: Baseline) -> Path:
    """Replace the baseline at once: a reader sees the old one or the new.

    Raises:
        DependencyError: the file cannot be written.
    """
    path = baseline_path(home)
    document = json.dumps(_BASELINE.dump_python(baseline, mode="json"), indent=2)
    with os_errors_as(DependencyError, "Saving the baseline of providers"):
        private_folder(path.parent)
        write_private(path, document + "\n")
    return path


def starting_speeds(home: Path) -> Mapping[tuple[str, str], float]:
    """Tokens a second by (provider, space id), as a router may expect them before its first answer.

    A baseline that cannot be read is passed over with a warning: no server fails for it.
    """
    try:
        baseline = load_baseline(home)
    except ConfigError as error:
        log.warning("Providers start without known speeds: %s", error)
        return {}
    if baseline is None:
        return {}
    return {(item.name, item.space_id): item.tokens_per_second for item in baseline.providers}


def _figure(number: float) -> str:
    return f"{number:,.1f}" if number >= 10 else f"{number:.3g}"


_BASELINE: Final = TypeAdapter(Baseline)
