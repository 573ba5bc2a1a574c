"""A line of the benchmark's table: what was measured, against what, and whether the target is met."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

Verdict = Literal["met", "missed", "not measured"]
#: Times a pair of competitors is run, in turns.
ROUNDS: Final = 3


@dataclass(frozen=True)
class Samples:
    """The same quantity of several runs, in the order in which they were made."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Highest less lowest, as a share of the median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Target:
    """A bound on a line's value: at least, or at most."""

    bound: float
    at_least: bool = True

    def met_by(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True)
class Line:
    """One row of the table.

    ``value`` is what ``target`` bounds: mostly a ratio (unit ``x``), ours to the peer's, or peer's to ours
    where less is better, so that more is always better for ours. None when it could not be measured;
    ``note`` then says why. ``details`` go to the JSON record only.
    """

    what: str
    against: str
    target: Target
    value: float | None
    unit: str = "x"
    #: The quantity of ``ours`` and ``peer``, such as ``texts/s``.
    measure: str = ""
    ours: Samples | None = None
    peer: Samples | None = None
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        if self.value is None:
            return "not measured"
        return "met" if self.target.met_by(self.value) else "missed"

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "details": dict(self.details), "verdict": self.verdict}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Line:
        """The line that ``record`` was made of."""
        fields = {name: value for name, value in record.items() if name != "verdict"}
        for name in ("ours", "peer"):
            if fields[name] is not None:
                fields[name] = Samples(tuple(fields[name]["values"]))
        return cls(**{**fields, "target": Target(**fields["target"])})


def in_turns(runs: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, Samples]:
    """Run all competitors ``rounds`` times, in turns, every other round backwards.

    Whatever else the machine does then falls on all of them alike.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        names = list(runs)
        for name in names if number % 2 == 0 else reversed(names):
            taken[name].append(runs[name]())
    return {name: Samples(tuple(values)) for name, values in taken.items()}


def ratio(ours: Samples, peer: Samples) -> float:
    """The median of the rounds' ratios: neighbours in time are compared, not the luckiest runs."""
    return statistics.median(mine / theirs for mine, theirs in zip(ours.values, peer.values, strict=True))
