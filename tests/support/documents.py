"""The commands that a document shows."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(name: str) -> list[str]:
    """Each command of the blocks marked ``sh`` in ``docs/name``, once, in order; a long one on one line."""
    text = (DOCS / name).read_text(encoding="utf-8")
    lines = (line for block in _BLOCK.findall(text) for line in block.replace("\\\n", "").splitlines())
    return list(dict.fromkeys(re.sub(r" {2,}", " ", line) for line in lines if line.strip()))
