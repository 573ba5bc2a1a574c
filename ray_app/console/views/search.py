"""The search box and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ray_app.console.formats import NOTHING
from ray_app.searching import Answer, Scoring
from ray_app.spaces import VectorType


@dataclass(frozen=True)
class Asked:
    """What the form holds."""

    tenant: str = ""
    text: str = ""
    tables: tuple[str, ...] = ()
    vector_type: str = VectorType.CONTENT.value
    hybrid: bool = False


@dataclass(frozen=True)
class HitLine:
    place: int
    table: str
    record_id: str
    score: str
    snippet: str
    #: Payload columns and their values.
    data: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Found:
    """The answer; ``note`` says what its scores are and who embedded the text."""

    hits: tuple[HitLine, ...]
    note: str


@dataclass(frozen=True)
class SearchView:
    asked: Asked
    tenants: tuple[str, ...]
    tables: tuple[str, ...]
    found: Found | None = None
    #: Why there is no answer.
    problem: str | None = None
    vector_types: tuple[str, ...] = field(default=tuple(kind.value for kind in VectorType))


def found(answer: Answer, providers: Sequence[str], milliseconds: float) -> Found:
    """The hits of ``answer``, and how they were come by."""
    cosine = answer.scoring is Scoring.COSINE
    what = "Scores are cosines" if cosine else "Lists were fused by rank: only the order counts"
    by = f", text embedded by {', '.join(providers)}" if providers else ""
    return Found(
        tuple(
            HitLine(
                place,
                hit.table,
                hit.record_id,
                f"{hit.score:.3f}" if cosine else f"{hit.score:.4f}",
                hit.snippet,
                tuple((name, _worded(value)) for name, value in sorted(hit.data.items())),
            )
            for place, hit in enumerate(answer.hits, 1)
        ),
        f"{len(answer.hits)} records in {milliseconds:.0f} ms. {what}{by}.",
    )


def _worded(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or NOTHING
    return NOTHING if value is None else str(value)
