"""What a PromQL expression asks for. Enough for this repository's own; no parser of the language."""

from __future__ import annotations

import re
from typing import Final

_STRINGS: Final = re.compile(r'"[^"]*"')
_GROUPINGS: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_MATCHERS: Final = re.compile(r"\{[^}]*\}")
_SPANS: Final = re.compile(r"\[[^\]]*\]")
_NAMES: Final = re.compile(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*\b(?!\s*\()")
_SELECTORS: Final = re.compile(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}")
_LABELS: Final = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)")
_WORDS: Final = {"or", "and", "unless", "bool", "offset", "by", "inf", "nan"}


def metrics_of(expression: str) -> set[str]:
    """The metrics it reads."""
    bare = _STRINGS.sub("", expression)
    for pattern in (_GROUPINGS, _MATCHERS, _SPANS):
        bare = pattern.sub(" ", bare)
    return {name for name in _NAMES.findall(bare) if name.lower() not in _WORDS}


def matched_labels(expression: str) -> set[tuple[str, str]]:
    """(metric, label) for each label that it selects by."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    return {
        (metric, label)
        for metric, matchers in _SELECTORS.findall(bare)
        for label in _LABELS.findall(matchers)
    }


def without_variables(expression: str) -> str:
    """With Grafana's variables filled in, as for all providers and tables and a short span."""
    filled = expression.replace("$__rate_interval", "1m").replace("$__range", "1h")
    return filled.replace("$provider", ".*").replace("$table", ".*")
