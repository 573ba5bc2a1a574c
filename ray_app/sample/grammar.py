"""A small phrase grammar: rules expand to texts, choices come from one seeded generator."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, TypeAlias

#: Alternatives that may name other rules as ``{rule}``, or a function of the generator.
Rule: TypeAlias = Sequence[str] | Callable[[Random], str]
_SLOT: Final = re.compile(r"\{(\w+)\}")
#: An article before a vowel that is heard; "one" and "uni…" begin with a consonant.
_ARTICLE: Final = re.compile(r"\b([Aa]) (?=[aei]|o(?!ne)|u(?!ni))")


class Grammar:
    """Expands rules to texts; the same generator state gives the same text on every machine."""

    def __init__(self, rules: Mapping[str, Rule], random: Random) -> None:
        self._rules = rules
        self._random = random

    def text(self, rule: str, bound: Mapping[str, str] | None = None) -> str:
        """One text of ``rule``. A name in ``bound`` stands for its value wherever it occurs.

        Raises:
            KeyError: a slot names no rule.
        """
        bound = bound or {}
        if rule in bound:
            return bound[rule]
        alternatives = self._rules[rule]
        if callable(alternatives):
            return alternatives(self._random)
        chosen = self._random.choice(alternatives)
        return _ARTICLE.sub(r"\1n ", _SLOT.sub(lambda slot: self.text(slot[1], bound), chosen))

    def sentences(self, rules: Sequence[str], bound: Mapping[str, str] | None = None) -> str:
        """One text of each rule, joined to a paragraph of sentences that begin with a capital; none twice."""
        drawn = dict.fromkeys(capitalised(self.text(rule, bound)) for rule in rules)
        return " ".join(filter(None, drawn))


def capitalised(text: str) -> str:
    """``text`` with its first letter in upper case; names of code keep theirs."""
    return text if text.startswith("`") else text[:1].upper() + text[1:]
