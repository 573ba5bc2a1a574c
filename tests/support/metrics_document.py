"""The tables of docs/metrics.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Row:
    """A metric as it is documented."""

    kind: str
    labels: tuple[str, ...]


@cache
def document() -> dict[str, Row]:
    """The documented metrics by name."""
    return {
        _CODE.findall(cells[0])[0]: Row(cells[1], tuple(_CODE.findall(cells[3])))
        for cells in _rows()
        if len(cells) == 6 and cells[0].startswith("`")
    }


def _rows() -> Iterator[list[str]]:
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]
