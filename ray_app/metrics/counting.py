"""Counting what several places do: the work of models, and what the ledger has been told, in its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from ray_app.metrics.declared import (
    COST,
    ENCODE_PADDING,
    ENCODE_SECONDS,
    ENCODE_TEXTS,
    ENCODE_TOKENS,
    JOB,
    NONE,
    PROVIDER_BUSY,
    RECORDS,
    SEVERAL,
    TEXTS_DONE,
    TOKENS,
)
from ray_app.parts import Part
from ray_app.reports import Counts

#: Outcomes that count as another: of an older state than what is embedded, nothing has to be embedded.
_NAMES: Final = {"older": "unchanged"}
#: Outcomes of records that need no provider, by their names in ``Counts``.
_WITHOUT_PROVIDER: Final = ("unchanged", "no_text", "dead", "deleted")


def count_batch(provider: str, source: str, texts: int, tokens: int, padding: int, seconds: float) -> None:
    """One batch through a local model; ``padding`` is the positions computed beside the tokens."""
    ENCODE_SECONDS.observe(seconds, provider, source)
    ENCODE_TEXTS.observe(texts, provider, source)
    ENCODE_TOKENS.add(tokens, provider, source)
    ENCODE_PADDING.add(padding, provider, source)


def count_usage(
    source: str, table: str, provider: str, *, texts: int, tokens: int, cost: Decimal, seconds: float
) -> None:
    """What a provider did, as a row of the ledger's usage has it; ``table`` is "" where none is concerned."""
    labels = (source, table or NONE, provider)
    TEXTS_DONE.add(texts, *labels, "embedded")
    TOKENS.add(tokens, *labels)
    COST.add(float(cost), *labels)
    PROVIDER_BUSY.add(seconds, *labels)


def count_records(source: str, table: str, provider: str, counts: Counts) -> None:
    """Records by outcome; ``provider`` embedded those that were, "" when none had to be."""
    if counts.embedded:
        RECORDS.add(counts.embedded, source, table, provider or NONE, "embedded")
    for outcome in _WITHOUT_PROVIDER:
        if number := getattr(counts, outcome):
            RECORDS.add(number, source, table, NONE, outcome)


def count_outcomes(source: str, table: str, provider: str, outcomes: Iterable[str]) -> None:
    """As ``count_records``, from the outcome of each; several providers come joined by commas."""
    found = Counter(_NAMES.get(outcome, outcome) for outcome in outcomes)
    count_records(source, table, SEVERAL if "," in provider else provider, Counts(**found))


def count_part(part: Part) -> None:
    """A part that a job has written and the ledger has counted."""
    count_records(JOB, part.table, part.provider, part.counts)
    if part.provider:
        count_usage(
            *(JOB, part.table, part.provider),
            texts=part.counts.chunks - part.counts.reused,
            tokens=part.tokens,
            cost=part.cost,
            seconds=part.seconds,
        )
        TEXTS_DONE.add(part.counts.reused, JOB, part.table, part.provider, "reused")
