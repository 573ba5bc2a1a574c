"""A Ray node's metrics as Prometheus would scrape them, those of Rowbeam alone."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

import httpx

PREFIX = "ray_rowbeam_"
#: What Ray adds to every series.
ADDED = {
    *("WorkerId", "NodeAddress", "SessionName", "Component", "Version"),
    *("otel_scope_name", "otel_scope_schema_url", "otel_scope_version"),
}
_SAMPLE = re.compile(r"(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass
class Family:
    """A metric and its samples: the name with its suffix, labels, value."""

    kind: str
    samples: list[tuple[str, dict[str, str], float]] = field(default_factory=list)

    @property
    def labels(self) -> set[str]:
        """Names of labels that Ray or a histogram has not added."""
        return {label for _, labels, _ in self.samples for label in labels} - ADDED - {"le"}


def scrape(url: str) -> dict[str, Family]:
    """By name. A counter's is that of its samples, ``_total`` included."""
    lines = httpx.get(url, trust_env=False, timeout=60).raise_for_status().text.splitlines()
    found: dict[str, Family] = {}
    for line in lines:
        if line.startswith(f"# TYPE {PREFIX}"):
            _, _, name, kind = line.split()
            found[name] = Family(kind)
            current = found[name]
        elif line.startswith(PREFIX):
            sample = _SAMPLE.fullmatch(line)
            assert sample is not None, line
            labels = dict(_LABEL.findall(sample["labels"]))
            current.samples.append((sample["name"], labels, float(sample["value"])))
    return found


def add_up(families: dict[str, Family], name: str, **labels: str) -> float:
    """The sum of a counter's or gauge's samples with these labels, whichever process they are of."""
    family = families.get(name)
    if family is None:
        return 0.0
    return sum(value for _, given, value in family.samples if labels.items() <= given.items())


def by(families: dict[str, Family], name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The sums of a metric's samples by these labels."""
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    if name in families:
        for _, given, value in families[name].samples:
            sums[tuple(given[label] for label in labels)] += value
    return dict(sums)
