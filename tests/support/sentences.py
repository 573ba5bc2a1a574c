"""Texts for real models."""

from __future__ import annotations

from typing import Final

import numpy as np

WORDS: Final = (
    *("fix", "add", "remove", "login", "build", "cache"),
    *("error", "test", "docs", "update", "retry", "token"),
)
ODD_TEXTS: Final = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "👩‍👩‍👧 🇧🇷",
    "e\u0301te\u0301",
    "\u200b",
    "\ud800 lone",
    "中文字符",
    "[SEP] [CLS] [PAD]",
    "x" * 100_000,
    "word " * 50_000,
)


def sentences(count: int, seed: int = 0) -> list[str]:
    """Different texts of 1 to 40 words, every twentieth longer than the model reads."""
    dice = np.random.default_rng(seed)
    sizes = [300 if place % 20 == 7 else dice.choice([1, 3, 5, 8, 13, 40]) for place in range(count)]
    return [f"{place}: " + " ".join(dice.choice(WORDS, size)) for place, size in enumerate(sizes)]
