"""The table, the JSON record and the plot of what was measured."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from jobs.benchmark.lines import Line, Samples, Target
from jobs.benchmark.machine import machine_facts
from ray_app.cli.layout import add_row, table_of

_COLOURS: Final = {"met": "green", "missed": "red", "not measured": "yellow"}


def say(text: str) -> None:
    """A line of progress, on standard error: standard output is the table's."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201


def table(lines: Sequence[Line]) -> Table:
    """One row for each line."""
    shown = table_of("what", "against", "ours>", "peer>", "value>", "target>", "verdict")
    for line in lines:
        add_row(
            shown,
            line.what,
            line.against,
            _samples(line.ours, line.measure),
            _samples(line.peer, line.measure),
            _value(line),
            _target(line.target, line.unit),
            Text(line.verdict, style=_COLOURS[line.verdict]),
        )
    return shown


def notes(lines: Sequence[Line]) -> list[str]:
    """What the table has no room for: why a line was not measured, or what to know about it."""
    return [f"{line.what}: {line.note}" for line in lines if line.note]


def record(lines: Sequence[Line], *, command: str, failed: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that was measured, on what and how, for JSON."""
    return {
        "measured": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command,
        "machine": machine_facts(),
        "failed_parts": list(failed),
        "lines": [line.record() for line in lines],
    }


def write_record(document: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def exit_status(lines: Sequence[Line], failed: Sequence[str] = ()) -> int:
    """0 when no line is missed and no part broke, else 1."""
    return int(bool(failed) or any(line.verdict == "missed" for line in lines))


def _samples(samples: Samples | None, measure: str) -> str:
    if samples is None:
        return ""
    spread = f" ±{samples.spread / 2:.0%}" if len(samples.values) > 1 else ""
    return f"{samples.median:,.{_digits(samples.median)}f}{spread} {measure}".rstrip()


def _value(line: Line) -> str:
    return "" if line.value is None else f"{line.value:,.{_digits(line.value)}f} {line.unit}".rstrip()


def _target(target: Target, unit: str) -> str:
    return f"{'≥' if target.at_least else '≤'} {target.bound:g} {unit}".rstrip()


def _digits(number: float) -> int:
    """Decimals that leave about three figures."""
    return 0 if abs(number) >= 100 else 1 if abs(number) >= 20 else 3 if abs(number) < 2 else 2
